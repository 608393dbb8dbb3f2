"""What the worker runs: each request as the pipeline does it, with model, session and descriptors kept warm.

Torch and the pipeline are imported by the first request, so that the worker says hello at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DiffusionSegmentError, ErrorCode, missing_package
from ..imaging.volume import Volume
from ..protocol.buffers import geometry_of, open_buffer
from ..protocol.messages import (
    Alternatives,
    Correct,
    Corrected,
    ExportDicom,
    Hypotheses,
    Imported,
    ImportModel,
    Message,
    Preview,
    Request,
    Result,
    Segment,
    SelfTest,
    SelfTestReport,
    Similar,
    Similarity,
    Task,
    Taught,
    Teach,
    VolumeReference,
    WriteReport,
    Written,
)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Delivery:
    """An answer before its maps are written: the message's class, its maps by field, its other fields."""

    answer: type[Message]
    maps: dict[str, Volume]
    values: dict[str, Any] = field(default_factory=dict)


class PipelineEngine:
    """The real engine: keeps the last model, run and descriptors between requests."""

    def __init__(self) -> None:
        self._let_go()

    def _let_go(self) -> None:
        """Forget what is warm, so that its memory is free."""
        self._model_key: tuple[str, str] | None = None
        self._model: Any = None
        self._session_key: tuple[object, ...] | None = None
        self._session: Any = None
        self._descriptors_key: tuple[object, ...] | None = None
        self._descriptors: Any = None

    def __call__(self, request: Task, progress: Progress, early: Callable[[Delivery], None]) -> Delivery:
        """Carry out a request; `early` takes what can be shown before the answer.

        Raises:
            DiffusionSegmentError: NO_TORCH, PACKAGE_MISSING, PROTOCOL for a request without a handler, and whatever the
                run raises.
        """
        handlers: dict[type[Task], Callable[[Any, Any, Progress], Delivery]] = {
            Segment: lambda request, model, progress: self._segment(request, model, progress, early),
            Correct: self._correct,
            Alternatives: self._alternatives,
            Similar: self._similar,
            Teach: self._teach,
        }
        try:
            if isinstance(request, (WriteReport, ExportDicom)):
                return _written(request, progress)
            if isinstance(request, SelfTest):
                return _self_tested(request, progress)
            if isinstance(request, ImportModel):
                return self._imported(request, progress)
            handler = handlers.get(type(request))
            if handler is None or not isinstance(request, Request):
                raise DiffusionSegmentError(ErrorCode.PROTOCOL, f"Nobody handles '{request.type}'.")
            return handler(request, self._load(request, progress), progress)
        except ModuleNotFoundError as error:
            raise missing_package(error) from error

    def _load(self, request: Request, progress: Progress) -> Any:
        from ..models.model import load_model

        progress("load", 0, 1)
        if self._model_key != (request.model, request.device):
            # Let go first: two models at once may not fit into memory.
            self._let_go()
            self._model = load_model(request.model, request.device)
            self._model_key = (request.model, request.device)
        progress("load", 1, 1)
        return self._model

    def _open(
        self,
        request: Segment,
        model: Any,
        progress: Progress,
        *,
        preview: Callable[[np.ndarray], None] | None = None,
    ) -> Any:
        """The session of a request: the last one where nothing differs that decides its bits, else a new run."""
        from ..pipeline.options import SegmentOptions, resolve
        from ..pipeline.segment import open_session

        volume = _volume(request.volume)
        options = SegmentOptions(
            samples=request.samples,
            steps=request.steps,
            seed=request.seed,
            sampler=request.sampler,
            organs=request.organs,
            force=request.force,
            region=request.region,
            memory_limit_gb=request.memory_limit_gb,
        )
        key = (_digest(volume), resolve(options, model))
        if key != self._session_key:
            self._session_key = self._session = None
            self._session = open_session(volume, model, options, progress=progress, preview=preview)
            self._session_key = key
        return self._session

    def _imported(self, request: ImportModel, progress: Progress) -> Delivery:
        from ..models.user_models import import_model

        progress("load", 0, 1)
        name = import_model(Path(request.path), replace=request.replace)
        if self._model_key is not None and self._model_key[0] == name:
            # What is in memory is the model that was replaced.
            self._let_go()
        return Delivery(Imported, {}, {"name": name})

    def _segment(self, request: Segment, model: Any, progress: Progress, early: Callable[[Delivery], None]) -> Delivery:
        from ..pipeline.segment import delivered

        geometry = geometry_of(request.volume)

        def show(labels: np.ndarray) -> None:
            early(Delivery(Preview, {"labels": Volume(labels, geometry)}))

        self._session_key = None
        session = self._open(request, model, progress, preview=show if request.preview else None)
        place = Path(request.output_folder)
        found = delivered(session, model, bodypart=request.bodypart, progress=progress, folder=place)
        maps: dict[str, np.ndarray] = {
            "labels": found.labels,
            "uncertainty": found.uncertainty,
            "mutual_information": found.mutual_information,
            "regions": found.regions,
        }
        if found.bodypart is not None:
            maps["bodypart"] = found.bodypart
        return Delivery(Result, {k: Volume(v, geometry) for k, v in maps.items()}, {"report": found.report})

    def _correct(self, request: Correct, model: Any, progress: Progress) -> Delivery:
        from ..pipeline.interactive.correction import Corrections, correct

        session = self._open(request, model, progress)
        corrections = Corrections(
            labels=np.asarray(open_buffer(request.labels)),
            marks=np.asarray(open_buffer(request.marks)),
            locked=request.locked,
        )
        found, self._session = correct(session, model, corrections, progress=progress)
        geometry = geometry_of(request.volume)
        boxed = moved_to_box(geometry, found.box)
        maps = {
            "labels": Volume(found.labels, boxed),
            "uncertainty": Volume(found.uncertainty, boxed),
            "mutual_information": Volume(found.mutual_information, boxed),
            "regions": Volume(found.regions, geometry),
        }
        return Delivery(Corrected, maps, {"report": found.report})

    def _alternatives(self, request: Alternatives, model: Any, progress: Progress) -> Delivery:
        from ..pipeline.interactive.alternatives import alternatives

        labels, box = alternatives(self._open(request, model, progress), progress=progress)
        return Delivery(Hypotheses, {"labels": Volume(labels, moved_to_box(geometry_of(request.volume), box))})

    def _similar(self, request: Similar, model: Any, progress: Progress) -> Delivery:
        from ..pipeline.interactive.similarity import describe_scan, similarity_on_grid

        volume = _volume(request.volume)
        key = (_digest(volume),)
        if key != self._descriptors_key:
            self._descriptors_key = self._descriptors = None
            self._descriptors = describe_scan(volume, model, progress=progress)
            self._descriptors_key = key
        x, y, z = request.point_lps
        return Delivery(Similarity, {"similarity": similarity_on_grid(self._descriptors, (x, y, z))})

    def _teach(self, request: Teach, model: Any, progress: Progress) -> Delivery:
        from ..training.fine_tuned_model import fine_tune_user_model
        from ..training.fine_tuning import LabelledVolume

        report = fine_tune_user_model(
            [LabelledVolume(_volume(request.volume), np.array(open_buffer(request.labels)))],
            dict(enumerate(request.names, start=1)),
            base=model,
            name=request.name,
            minutes=request.minutes,
            replace=request.replace,
            progress=progress,
        )
        return Delivery(Taught, {}, {"name": request.name, "report": report})


def _written(request: WriteReport | ExportDicom, progress: Progress) -> Delivery:
    """Report and export need no network, so the warm model stays as it is."""
    from .reporting_requests import export_dicom_of, write_report_of

    if isinstance(request, WriteReport):
        return Delivery(Written, {}, {"path": str(write_report_of(request, progress))})
    return Delivery(Written, {}, {"path": str(export_dicom_of(request, progress))})


def _self_tested(request: SelfTest, progress: Progress) -> Delivery:
    from .self_test import run_self_test

    return Delivery(SelfTestReport, {}, {"report": run_self_test(request.device, progress=progress).as_report()})


def moved_to_box(index_to_lps: np.ndarray, box: tuple[slice, slice, slice]) -> np.ndarray:
    """The geometry (4x4 to LPS mm) of a box (k, j, i) cut out of a volume."""
    k, j, i = box
    moved = index_to_lps.copy()
    moved[:3, 3] += index_to_lps[:3, :3] @ np.array([i.start, j.start, k.start], dtype=float)
    return moved


def _volume(reference: VolumeReference) -> Volume:
    return Volume(open_buffer(reference), geometry_of(reference))


def _digest(volume: Volume) -> str:
    """Tells one scan from another by its values and place."""
    found = hashlib.blake2b(np.ascontiguousarray(volume.array).data, digest_size=16)
    found.update(np.ascontiguousarray(volume.index_to_lps).data)
    return found.hexdigest()
