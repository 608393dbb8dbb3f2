"""Apply the scribbles in a label map to a result folder, and write the corrected result folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.alignment import align_to_scan
from ..imaging.atomic_writes import check_writable
from ..imaging.label_changes import record_correction
from ..imaging.label_maps import read_label_map
from ..imaging.shear import notes_of
from ..imaging.volume import Volume
from ..imaging.volume_io import read_scan, read_volume, write_map
from ..models.model import Model, load_model, weights_sha256
from ..pipeline.interactive.correction import Correction, Corrections, correct
from ..pipeline.interactive.session_files import UnusableSessionError, read_session
from ..pipeline.options import SegmentOptions, options_for_scan
from ..pipeline.progress import Progress, silent
from ..pipeline.segment import Segmentation, open_session
from ..pipeline.session import Session
from ..pipeline.uncertainty_maps import uncertainty_in_box
from ..schema.correction_marks import scribble_value
from ..schema.output_kinds import (
    BODYPART,
    CORRECTIONS,
    MUTUAL_INFORMATION,
    REPORT,
    REVIEWED,
    SEGMENTATION,
    SESSION,
    UNCERTAINTY,
)
from ..schema.provenance import Provenance, Source
from ..schema.report import Report
from ..schema.run_options import run_options_of
from .result_extras import NOTHING_MORE, Extras, RunAdditions, RunInput, write_run
from .result_folder import Timings

_DRAW_HERE = "Draw on the result's own geometry."
# No run takes longer; such a figure is not shown.
_MAX_RUN_S = 86400.0


@dataclass(frozen=True, kw_only=True)
class CorrectOptions:
    """Options of a correction.

    `scan` is another path of the scan than that in the report, `series` one of several DICOM series in it; `locked` are
    names of organs that change only where there is a scribble; `extras` says what else to write.
    """

    scan: Path | None = None
    series: str | None = None
    locked: tuple[str, ...] = ()
    device: str = "auto"
    extras: Extras = NOTHING_MORE


def correct_folder(
    folder: Path,
    corrections: Path,
    output: Path,
    options: CorrectOptions,
    *,
    progress: Progress = silent,
    timings: Timings | None = None,
    notify: Callable[[str], None] = lambda line: None,
) -> Report:
    """Apply the scribbles in `corrections` to the result in `folder`; write the corrected result to `output`.

    The saved session of the result is used where there is one; otherwise the run is repeated with the options in its
    report, on the scan named there or in `options`. Marks of earlier corrections in `folder` are applied too. `timings`
    returns the timings of the whole run for the new report. `notify` receives lines for the user: whether the case runs
    again, and which organs changed. Returns the new report, whose `corrections` list this and earlier corrections.

    Raises:
        DiffusionSegmentError: INPUT_MISSING for a folder that is no result or a scan that is gone, GEOMETRY, OPTION,
            WEIGHTS_CORRUPT when the model is not the one of the report, and whatever reading and writing raise.
    """
    check_writable(output)
    report = _read_report(folder)
    progress("read", 0, 1)
    labels = _read_scan_and_labels(folder, corrections, report, options)
    progress("load", 0, 1)
    provenance, volume = report.provenance, labels.volume
    run_input = RunInput(volume, _load_model(provenance, options.device), _run_options(report, folder, volume))
    notify(_scribbles_line(labels.new_scribbles, run_input))
    session, session_file = _session_of(folder, run_input, report, progress=progress, notify=notify)
    request = Corrections(labels.current, labels.scribbles, _label_values(options.locked, run_input))
    correction, corrected_session = correct(session, run_input.model, request, progress=progress)
    result = _corrected_maps(folder, labels, correction, corrected_session)
    result = replace(result, report=_with_history(correction.report, report, labels, result.labels))
    progress("write", 0, 1)
    additions = RunAdditions(
        write=_write_scribbles_and_coordinates(folder, volume, labels.scribbles),
        session_file=session_file,
        scribbles=labels.scribbles,
    )
    written = write_run(
        result, corrected_session, run_input, output, options.extras, additions=additions, timings=timings
    )
    for line in _change_table(labels, result.labels, result.report):
        notify(line)
    return written


@dataclass(frozen=True)
class _ScanAndLabels:
    """The scan, its labels before the correction, the new scribbles, and these with those of earlier corrections."""

    volume: Volume
    current: NDArray[np.uint8]
    new_scribbles: NDArray[np.uint8]
    scribbles: NDArray[np.uint8]


def _read_scan_and_labels(folder: Path, corrections: Path, report: Report, options: CorrectOptions) -> _ScanAndLabels:
    source = report.provenance.source
    volume = read_scan(_scan_path(source, options.scan), series=options.series or source.series_uid).volume
    current, new_scribbles = _read_labels(folder / SEGMENTATION, volume), _read_labels(corrections, volume)
    return _ScanAndLabels(volume, current, new_scribbles, _with_earlier_scribbles(folder, new_scribbles, volume))


def _label_values(names: tuple[str, ...], run_input: RunInput) -> tuple[int, ...]:
    return tuple(run_input.model.description.label_named(name).value for name in names)


def _scribbles_line(scribbles: NDArray[np.uint8], run_input: RunInput) -> str:
    """Number of voxels marked as each label.

    Raises:
        DiffusionSegmentError: OPTION for a label that the run did not segment.
    """
    titles = {0: "background"} | {label.value: label.title for label in run_input.model.description.labels}
    organs = run_input.options.organs
    segmented = titles.keys() if organs is None else {0, *_label_values(organs, run_input)}
    counts = np.bincount(scribbles.ravel(), minlength=2)[1:]
    present = np.flatnonzero(counts).tolist()
    for value in present:
        if value not in segmented:
            title = titles.get(value, f"label {value}")
            raise DiffusionSegmentError(
                ErrorCode.OPTION,
                f"{counts[value]} voxels are marked {scribble_value(value)}, which is {title}; "
                "it was not segmented here.",
                hint="k + 1 marks label k. To correct other organs too, segment again without --organs.",
            )
    return "Marked: " + ", ".join(f"{counts[value]} voxels as {titles[value]}" for value in present) + "."


def _with_earlier_scribbles(folder: Path, scribbles: NDArray[np.uint8], volume: Volume) -> NDArray[np.uint8]:
    """New scribbles, and those of earlier corrections where there is none."""
    if not (folder / CORRECTIONS).is_file():
        return scribbles
    return np.where(scribbles > 0, scribbles, _read_labels(folder / CORRECTIONS, volume))


def _with_history(new: Report, earlier: Report, labels: _ScanAndLabels, corrected: NDArray[np.uint8]) -> Report:
    """The report of a correction with the source and the corrections of the report before it."""
    record = record_correction(
        labels.current,
        corrected,
        organs=new.organs,
        voxel_ml=labels.volume.voxel_ml,
        marked_voxels=int(np.count_nonzero(labels.new_scribbles)),
    )
    return replace(
        new,
        warnings=(*notes_of(labels.volume), *new.warnings),
        provenance=replace(new.provenance, source=earlier.provenance.source),
        corrections=(*earlier.corrections, record),
        reviewed=earlier.reviewed,
    )


def _load_model(provenance: Provenance, device: str) -> Model:
    name, software = provenance.plan.model, provenance.software
    model = load_model(provenance.source.model_folder or name, device)
    if weights_sha256(model.description) != software.sha256:
        raise DiffusionSegmentError(
            ErrorCode.WEIGHTS_CORRUPT,
            f"The result was made by {name} {software.version}; installed: {model.description.version}.",
            hint="Segment the scan again.",
        )
    return model


def _session_of(
    folder: Path,
    run_input: RunInput,
    report: Report,
    *,
    progress: Progress,
    notify: Callable[[str], None],
) -> tuple[Session, Path | None]:
    """The saved session of a result and its file, or the session of a new run."""
    path = folder / SESSION
    try:
        session = read_session(path, run_input.volume, run_input.model, run_input.options)
        notify("The saved session is used; the case does not run again.")
        return session, path
    except UnusableSessionError as error:
        if path.exists():
            notify(f"Note: the session in {path} is not used: {error}.")
    notify(f"The case runs again{_duration(report)}; `segment --keep-session` avoids this.")
    return open_session(run_input.volume, run_input.model, run_input.options, progress=progress), None


def _duration(report: Report) -> str:
    """How long the run took, as a part of a sentence; empty where it is not known."""
    total = (report.run_timings_s or report.timings_s).get("total", 0.0)
    if not 0 < total < _MAX_RUN_S:
        return ""
    return f", about {total:.0f} s" if total < 120 else f", about {total / 60:.0f} min"


def _change_table(labels: _ScanAndLabels, corrected: NDArray[np.uint8], report: Report) -> Iterator[str]:
    """A table of the organs that the last correction changed, line by line."""
    record, voxel_ml = report.corrections[-1], labels.volume.voxel_ml
    if not record.organs:
        yield "No label changed."
        return
    counts = [np.bincount(part.ravel(), minlength=256) for part in (labels.current, corrected)]
    values = {organ.name: organ.value for organ in report.organs}
    yield f"{'Corrected':<26}{'before':>12}{'after':>12}   voxels changed"
    for organ in record.organs:
        was, now = (f"{float(count[values[organ.name]]) * voxel_ml:.1f} mL" for count in counts)
        changed = f"{organ.gained_voxels + organ.lost_voxels} (+{organ.gained_voxels} -{organ.lost_voxels})"
        yield f"{organ.title:<26}{was:>12}{now:>12}   {changed}"


def _read_report(folder: Path) -> Report:
    try:
        return Report.from_json(json.loads((folder / REPORT).read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING,
            f"{folder} is not a finished result ({type(error).__name__}: {str(error)[:200]}).",
            hint="Name a folder that `segment` wrote.",
        ) from error


def _scan_path(source: Source, scan: Path | None) -> Path:
    path = scan or (Path(source.input) if source.input else None)
    if path is None or not path.exists():
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING, f"The scan {path or 'of this result'} is gone.", hint="Name it with --scan."
        )
    return path


def _read_labels(path: Path, scan: Volume) -> NDArray[np.uint8]:
    return read_label_map(path, scan, hint=_DRAW_HERE)


def _run_options(report: Report, folder: Path, volume: Volume) -> SegmentOptions:
    """The options of the run; a scan that was segmented once is not refused, and no samples are the default's."""
    plan, presegmentation = report.provenance.plan, report.provenance.source.presegmentation
    options = replace(
        run_options_of(plan), samples=max(1, plan.samples), steps=max(1, plan.steps), force=True, precision="auto"
    )
    labels = _read_labels(Path(presegmentation), volume) if presegmentation else None
    reviewed = _read_labels(folder / REVIEWED, volume) if report.reviewed is not None else None
    return options_for_scan(options, presegmentation=labels, reviewed=reviewed)


def _corrected_maps(folder: Path, labels: _ScanAndLabels, correction: Correction, session: Session) -> Segmentation:
    """The maps of a folder with what the correction changed in them, and the report of the correction."""
    corrected = labels.current.copy()
    corrected[correction.box] = correction.labels
    maps = [_float_map(folder / name, labels.volume) for name in (UNCERTAINTY, MUTUAL_INFORMATION)]
    changed = uncertainty_in_box(session, correction.canonical_box, labels.scribbles)
    for whole, part in zip(maps, changed, strict=True):
        whole[correction.box] = part
    return Segmentation(
        labels=corrected,
        regions=correction.regions,
        bodypart=None,
        report=correction.report,
        uncertainty=maps[0],
        mutual_information=maps[1],
    )


def _write_scribbles_and_coordinates(
    folder: Path, volume: Volume, scribbles: NDArray[np.uint8]
) -> Callable[[Path], None]:
    """A function that writes all scribbles, and copies body coordinates and reviewed labels, which do not change."""

    def write(staging: Path) -> None:
        write_map(Volume(scribbles, volume.index_to_lps), staging / CORRECTIONS)
        for name in (BODYPART, REVIEWED):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, staging / name)

    return write


def _float_map(path: Path, scan: Volume) -> NDArray[np.float32]:
    aligned = align_to_scan(read_volume(path), scan, what=f"{path} and the scan", hint=_DRAW_HERE)
    return np.array(aligned, dtype=np.float32)
