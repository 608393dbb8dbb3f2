"""What a worker of a cohort does with a scan: checksum, segmentation, thumbnail, DICOM SEG."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..commands.progress_display import ProgressBar
from ..commands.segment import RunChoices, segment_scan
from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.atomic_writes import staged_file
from ..imaging.dicom_scan import check_hounsfield
from ..imaging.label_maps import read_label_map
from ..imaging.output_folder import check_replaceable
from ..imaging.volume_io import Scan, read_scan
from ..models.model import Model, load_model
from ..pipeline.organ_alarms import is_cut
from ..protocol.messages import FilesSegmented
from ..protocol.requests import SegmentFiles
from ..schema.model_manifest import ModelLabel
from ..schema.output_kinds import REPORT, RESULT, SEGMENTATION
from ..schema.run_options import run_options_of
from ..worker.answer import EngineAnswer, SendEarly
from .keys import content_digest, scan_key
from .picture import thumbnail

ReportProgress = Callable[[str, int, int], None]


class CohortEngine:
    """The engine of the worker; it keeps the model between scans."""

    def __init__(self) -> None:
        self._model: Model | None = None
        self._loaded: tuple[str, str, str] | None = None

    def __call__(self, request: SegmentFiles, progress: ReportProgress, send_early: SendEarly) -> EngineAnswer:
        """Segment the scan of a request, unless the result of an earlier run has the same key.

        Raises:
            DiffusionSegmentError: whatever is wrong with the scan, the model or the folders.
        """
        if not isinstance(request, SegmentFiles):
            raise DiffusionSegmentError(ErrorCode.PROTOCOL, f"The worker of a cohort takes no '{request.type}'.")
        paths = files_of(request)
        key = scan_key(_digest_of(paths), request.settings)
        if key == request.finished_key and is_complete(request):
            return EngineAnswer(FilesSegmented, {}, {"key": key, "kept": True})
        bar = _Bar(progress)
        model = self._model_of(request, bar)
        bar("read", 0, 1)
        scan = _read(request, paths)
        values = _segment(request, scan, model, bar)
        return EngineAnswer(FilesSegmented, {}, {"key": key, "kept": False, **values})

    def _model_of(self, request: SegmentFiles, bar: ProgressBar) -> Model:
        wanted = (request.model, request.device, request.precision)
        if self._model is None or self._loaded != wanted:
            bar("load", 0, 1)
            # Dropped first: two models at once may not fit into memory.
            self._model = None
            self._model = load_model(request.model, request.device, precision=request.precision)
            self._loaded = wanted
        return self._model


class _Bar(ProgressBar):
    """Measures the stages of a run and passes them on; shows nothing."""

    def __init__(self, progress: ReportProgress) -> None:
        super().__init__(quiet=True)
        self._progress = progress

    def __call__(self, stage: str, done: int, total: int) -> None:
        super().__call__(stage, done, total)
        self._progress(stage, done, total)


def files_of(request: SegmentFiles) -> tuple[Path, ...]:
    """The files of the scan: those in the list of a DICOM series, otherwise the file itself.

    Raises:
        DiffusionSegmentError: INPUT_MISSING.
    """
    path = Path(request.scan)
    if request.series is None:
        return (path,)
    try:
        return tuple(Path(os.fsdecode(line)) for line in path.read_bytes().split(b"\0") if line)
    except OSError as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING, f"{path} cannot be read.", hint="Run the cohort again."
        ) from error


def is_complete(request: SegmentFiles) -> bool:
    """Whether everything that a request asks for is there; a DICOM SEG is not written without organs."""
    return (Path(request.result_folder) / REPORT).is_file() and Path(request.thumbnail).is_file()


def _digest_of(paths: Sequence[Path]) -> str:
    try:
        return content_digest(paths)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING if missing else ErrorCode.INPUT_UNREADABLE,
            f"{error.filename} cannot be read ({error.strerror or error}).",
            hint="Check the path and its permissions.",
        ) from error


def _read(request: SegmentFiles, paths: Sequence[Path]) -> Scan:
    if request.series is None:
        return read_scan(paths[0])
    scan = read_scan(_folder_of(paths), series=request.series, files=paths)
    if scan.dicom is not None and not request.force:
        check_hounsfield(scan.dicom)
    return scan


def _folder_of(paths: Sequence[Path]) -> Path:
    """The folder that contains all files."""
    return Path(os.path.commonpath([path.parent for path in paths]))


def _segment(request: SegmentFiles, scan: Scan, model: Model, bar: ProgressBar) -> dict[str, object]:
    """Write all files of a result; returns the fields of the answer that describe the scan."""
    folder = Path(request.result_folder)
    check_replaceable(folder, RESULT)
    choices = RunChoices(options=run_options_of(request), series=request.series)
    segment_scan(scan, request.scan, folder, model, choices, bar=bar, stated=request.identifiers)
    labels = read_label_map(folder / SEGMENTATION, scan.volume)
    description = model.description
    colours = {label.value: label.colour for label in description.labels}
    picture = thumbnail(scan.volume, labels, colours, hounsfield=description.in_hounsfield)
    with staged_file(Path(request.thumbnail)) as partial:
        partial.write_bytes(picture)
    if request.dicom_seg and labels.any():
        from ..reporting.dicom_seg import write_dicom_seg

        write_dicom_seg(folder, Path(request.dicom_seg), scan=_folder_of(files_of(request)), series=request.series)
    return {
        "shape": tuple(scan.volume.array.shape),
        "spacing_mm": tuple(round(float(value), 6) for value in scan.volume.spacing),
        "cut": cut_organs(labels, description.labels),
    }


def cut_organs(labels: NDArray[np.uint8], names: Sequence[ModelLabel]) -> tuple[str, ...]:
    """Names of the organs that reach the edge of the scan, so that their volume is not that of the whole organ."""
    boxes = ndimage.find_objects(labels, max_label=max(label.value for label in names))
    return tuple(
        label.name
        for label in names
        if (box := boxes[label.value - 1]) is not None and is_cut(labels[box] == label.value, box, labels.shape)
    )
