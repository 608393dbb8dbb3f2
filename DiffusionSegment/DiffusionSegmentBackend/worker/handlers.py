"""What each request does: one function per kind, selected by the request's type in HANDLERS.

PyTorch and the pipeline are imported by the first request, so that the worker says hello at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..imaging.volume import Box, Volume
from ..pipeline.progress import Progress
from ..protocol.buffers import geometry_of, open_buffer
from ..protocol.messages import (
    Alternatives,
    Correct,
    Corrected,
    ExportDicom,
    FineTune,
    FineTuned,
    Imported,
    ImportModel,
    Presegment,
    Preview,
    RegionAlternatives,
    Result,
    Review,
    Segment,
    SelfTest,
    SelfTestReport,
    Similar,
    Similarity,
    Task,
    WriteReport,
    Written,
)
from ..schema.reviewed_segmentation import ReviewedSegmentation
from .answer import EngineAnswer, SendEarly
from .session_cache import SessionCache, volume_of

if TYPE_CHECKING:
    from ..models.model import Model
    from ..pipeline.interactive.alternative_marks import AlternativeMarks
    from ..pipeline.session import Session
    from ..pipeline.uncertainty_maps import GridMaps


@dataclass(frozen=True)
class HandlerContext:
    """What a handler works with: the entries kept between requests, and where progress and early answers go."""

    cache: SessionCache
    progress: Progress
    send_early: SendEarly


def segment(request: Segment, context: HandlerContext) -> EngineAnswer:
    """Run the model, show its pre-segmentation early where that is asked for, and return the maps of the result."""
    geometry = geometry_of(request.volume)

    def show(labels: NDArray[np.uint8]) -> None:
        context.send_early(EngineAnswer(Preview, {"labels": Volume(labels, geometry)}))

    model = context.cache.model(request, context.progress)
    session = context.cache.new_session(request, model, context.progress, show if request.preview else None)
    return _result(session, model, request, context)


def review(request: Review, context: HandlerContext) -> EngineAnswer:
    """Run the model on the scan of a segmentation from another source, and return the maps of the review."""
    model = context.cache.model(request, context.progress)
    session = context.cache.new_session(request, model, context.progress, None)
    return _result(session, model, request, context, reviewed=request.segments)


def _result(
    session: Session,
    model: Model,
    request: Segment,
    context: HandlerContext,
    *,
    reviewed: ReviewedSegmentation | None = None,
) -> EngineAnswer:
    """The maps and the report of a session, which states what was `reviewed`."""
    from ..pipeline.interactive.alternative_marks import alternative_marks
    from ..pipeline.segment import build_on_grid

    geometry = geometry_of(request.volume)
    folder = Path(request.output_folder)
    result = build_on_grid(session, model, bodypart=request.bodypart, progress=context.progress, folder=folder)
    maps: dict[str, NDArray[Any]] = {"labels": result.labels, "regions": result.regions}
    if result.bodypart is not None:
        maps["bodypart"] = result.bodypart
    volumes = {name: Volume(array, geometry) for name, array in maps.items()} | _uncertainty(result.maps)
    values = {"report": replace(result.report, reviewed=reviewed)}
    alternatives = alternative_marks(session, model.description, result.report.review, result.regions)
    return _with_alternatives(EngineAnswer(Result, volumes, values), alternatives, geometry)


def _uncertainty(maps: GridMaps) -> dict[str, Volume]:
    """The fields of an answer with the maps of uncertainty."""
    return {"uncertainty": maps.uncertainty, "mutual_information": maps.mutual_information}


def _with_alternatives(
    answer: EngineAnswer, alternatives: AlternativeMarks, geometry: NDArray[np.float64]
) -> EngineAnswer:
    """An answer with the alternatives of its regions."""
    marks = {} if alternatives.marks is None else {"alternative_marks": Volume(alternatives.marks, geometry)}
    return replace(
        answer, maps={**answer.maps, **marks}, values={**answer.values, "alternatives": alternatives.regions}
    )


def correct(request: Correct, context: HandlerContext) -> EngineAnswer:
    """Apply the scribbles to the session of the run, and return what changed."""
    from ..pipeline.interactive.alternative_marks import alternative_marks
    from ..pipeline.interactive.correction import Corrections
    from ..pipeline.interactive.correction import correct as correct_session
    from ..pipeline.uncertainty_maps import uncertainty_on_grid

    model = context.cache.model(request, context.progress)
    session = context.cache.session(request, model, context.progress)
    corrections = Corrections(
        labels=np.asarray(open_buffer(request.labels)),
        scribbles=np.asarray(open_buffer(request.scribbles)),
        locked=request.locked,
    )
    correction, corrected = correct_session(session, model, corrections, progress=context.progress)
    context.cache.replace_session(corrected)
    geometry = geometry_of(request.volume)
    maps = {
        "labels": Volume(correction.labels, moved_to_box(geometry, correction.box)),
        "regions": Volume(correction.regions, geometry),
        **_uncertainty(uncertainty_on_grid(corrected)),
    }
    alternatives = alternative_marks(corrected, model.description, correction.report.review, correction.regions)
    return _with_alternatives(EngineAnswer(Corrected, maps, {"report": correction.report}), alternatives, geometry)


def alternatives(request: Alternatives, context: HandlerContext) -> EngineAnswer:
    """Return the alternatives of the regions to review."""
    from ..pipeline.interactive.alternative_marks import alternatives_of_session

    model = context.cache.model(request, context.progress)
    session = context.cache.session(request, model, context.progress)
    context.progress("alternatives", 0, 1)
    result = alternatives_of_session(session, model.description)
    context.progress("alternatives", 1, 1)
    return _with_alternatives(EngineAnswer(RegionAlternatives, {}), result, geometry_of(request.volume))


def similar(request: Similar, context: HandlerContext) -> EngineAnswer:
    """Return the cosine similarity of every voxel's features to those at a point."""
    from ..pipeline.interactive.similarity import similarity_on_grid

    model = context.cache.model(request, context.progress)
    similarity = similarity_on_grid(context.cache.features(request, model, context.progress), request.point_lps)
    return EngineAnswer(Similarity, {"similarity": similarity})


def fine_tune(request: FineTune, context: HandlerContext) -> EngineAnswer:
    """Fine-tune a model on the segments of one scan, and install it."""
    from ..training.fine_tuned_model import fine_tune_user_model
    from ..training.fine_tuning import LabelledVolume

    report = fine_tune_user_model(
        [LabelledVolume(volume_of(request.volume), np.array(open_buffer(request.labels)))],
        dict(enumerate(request.names, start=1)),
        base=context.cache.model(request, context.progress),
        name=request.name,
        minutes=request.minutes,
        replace=request.replace,
        progress=context.progress,
    )
    return EngineAnswer(FineTuned, {}, {"name": request.name, "report": report})


def write_report(request: WriteReport, context: HandlerContext) -> EngineAnswer:
    """Write the case report; the model in memory is not needed and stays."""
    from .reporting_requests import write_report_of

    return EngineAnswer(Written, {}, {"path": str(write_report_of(request, context.progress))})


def export_dicom(request: ExportDicom, context: HandlerContext) -> EngineAnswer:
    """Write the DICOM SEG; the model in memory is not needed and stays."""
    from .reporting_requests import export_dicom_of

    return EngineAnswer(Written, {}, {"path": str(export_dicom_of(request, context.progress))})


def presegment(request: Presegment, context: HandlerContext) -> EngineAnswer:
    """Segment the scan with a model of another program; the model in memory is not needed and stays."""
    from .presegmentation import presegment_scan

    return presegment_scan(request, context.progress)


def self_test(request: SelfTest, context: HandlerContext) -> EngineAnswer:
    """Measure the device."""
    from .self_test import run_self_test

    report = run_self_test(request.device, progress=context.progress)
    return EngineAnswer(SelfTestReport, {}, {"report": report})


def import_model(request: ImportModel, context: HandlerContext) -> EngineAnswer:
    """Install a model; where it replaces the one in memory, that is dropped."""
    from ..models.user_models import import_model as install

    context.progress("load", 0, 1)
    name = install(Path(request.path), replace=request.replace)
    context.cache.drop_model(name)
    return EngineAnswer(Imported, {}, {"name": name})


Handler = Callable[[Any, HandlerContext], EngineAnswer]
HANDLERS: dict[type[Task], Handler] = {
    Segment: segment,
    Review: review,
    Presegment: presegment,
    Correct: correct,
    Alternatives: alternatives,
    Similar: similar,
    FineTune: fine_tune,
    WriteReport: write_report,
    ExportDicom: export_dicom,
    SelfTest: self_test,
    ImportModel: import_model,
}


def moved_to_box(index_to_lps: NDArray[np.float64], box: Box) -> NDArray[np.float64]:
    """The geometry (4x4 to LPS mm) of a box (k, j, i) cut out of a volume."""
    k, j, i = box
    moved = index_to_lps.copy()
    moved[:3, 3] += index_to_lps[:3, :3] @ np.array([i.start, j.start, k.start], dtype=float)
    return moved
