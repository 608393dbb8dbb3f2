"""Corrections from files: a result folder and a label map of marks become a corrected result folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.atomic_writes import check_writable
from ..imaging.label_changes import record_correction
from ..imaging.label_maps import read_label_map
from ..imaging.maps import write_map
from ..imaging.placement import laid_on
from ..imaging.shear import notes_of
from ..imaging.volume import Volume
from ..imaging.volume_io import read_scan, read_volume
from ..models.model import Model, load_model, weights_sha256
from ..pipeline.interactive.correction import Correction, Corrections, correct
from ..pipeline.interactive.session_files import UnusableSessionError, open_kept_session
from ..pipeline.options import SegmentOptions
from ..pipeline.progress import Progress, silent
from ..pipeline.segment import Segmentation, open_session
from ..pipeline.session import Session
from ..schema.correction_record import CorrectionRecord, corrections_of, with_corrections
from ..schema.dataclass_json import from_json
from ..schema.output_kinds import BODYPART, CORRECTIONS, MUTUAL_INFORMATION, REPORT, SEGMENTATION, SESSION, UNCERTAINTY
from ..schema.report import OrganResult
from .result_extras import NOTHING_MORE, Extras, RunInput, write_run
from .result_folder import Timings

_DRAW_HERE = "Draw on the result's own geometry."
# What the report of a run says about its input.
_KEPT = ("model_folder", "input", "presegmentation", "series", "series_uid")
# A report that claims more was not written by a run.
_LONGEST_RUN_S = 86400.0


def correct_folder(
    folder: Path,
    corrections: Path,
    output: Path,
    *,
    scan: Path | None = None,
    series: str | None = None,
    locked: tuple[str, ...] = (),
    device: str = "auto",
    extras: Extras = NOTHING_MORE,
    progress: Progress = silent,
    timings: Timings | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Apply the marks in `corrections` to the result in `folder`; write the corrected result to `output`.

    The session that the result keeps is opened; else the run is done again as the report tells, from the scan that it
    names or `scan`, so that nothing but the marks makes a difference. Marks of earlier corrections in `folder` stay in
    force. `timings` gives those of the whole run for the new report. `say` takes lines for the user: whether the case
    runs again, and which organs changed. Returns the new report, whose `corrections` list what this and earlier
    corrections changed.

    Raises:
        DiffusionSegmentError: INPUT_MISSING for a folder that is no result or a scan that is gone, GEOMETRY, OPTION,
            WEIGHTS_CORRUPT when the model is not the one of the report, and whatever reading and writing raise.
    """
    check_writable(output)
    report = _report_of(folder)
    told = report["provenance"]
    progress("read", 0, 1)
    volume = read_scan(_scan_of(told, scan), series=series or _word(told.get("series_uid"))).volume
    current, marked = _map_of(folder / SEGMENTATION, volume), _map_of(corrections, volume)
    marks = _in_force(folder, marked, volume)
    progress("load", 0, 1)
    given = RunInput(volume, _model_of(told, device), _options_of(told, volume))
    say(_marks_in_words(marked, given))
    session, kept = _session_of(folder, given, report, progress=progress, say=say)
    asked = Corrections(labels=current, marks=marks, locked=_values_of(locked, given))
    correction, after = correct(session, given.model, asked, progress=progress)
    labels = current.copy()
    labels[correction.box] = correction.labels
    record = _record_of(correction, current, labels, marked, volume)
    result = _result(folder, volume, correction, labels, _new_report(report, correction, record, volume))
    progress("write", 0, 1)
    also = _also(folder, volume, marks)
    write_run(result, after, given, output, extras, also=also, kept_session=kept, marks=marks, timings=timings)
    for line in _changes(record, current, labels, result.report, volume.voxel_ml):
        say(line)
    return result.report


def _values_of(names: tuple[str, ...], given: RunInput) -> tuple[int, ...]:
    return tuple(given.model.description.label_named(name).value for name in names)


def _marks_in_words(marked: NDArray[np.uint8], given: RunInput) -> str:
    """How many voxels are marked as what.

    Raises:
        DiffusionSegmentError: OPTION for an organ that the run was not asked for.
    """
    titles = {label.value: label.title for label in given.model.description.labels} | {0: "background"}
    organs = given.options.organs
    asked = None if organs is None else {given.model.description.label_named(name).value for name in organs} | {0}
    counts = np.bincount(marked.ravel(), minlength=2)[1:]
    named = [(titles[value], int(counts[value])) for value in np.flatnonzero(counts).tolist() if value in titles]
    foreign = [value for value in np.flatnonzero(counts).tolist() if asked is not None and value not in asked]
    if foreign:
        what = titles.get(foreign[0], f"label {foreign[0]}")
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"{counts[foreign[0]]} voxels are marked {foreign[0] + 1}, which is {what}; it was not segmented here.",
            hint="k + 1 marks label k. To correct other organs too, segment again without --organs.",
        )
    return "Marked: " + ", ".join(f"{count} voxels as {title}" for title, count in named) + "."


def _record_of(
    correction: Correction,
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    marked: NDArray[np.uint8],
    volume: Volume,
) -> CorrectionRecord:
    """What a correction changed of the labels."""
    return record_correction(
        before,
        after,
        organs=[from_json(OrganResult, organ) for organ in correction.report["organs"]],
        voxel_ml=volume.voxel_ml,
        marked_voxels=int(np.count_nonzero(marked)),
    )


def _in_force(folder: Path, marked: NDArray[np.uint8], volume: Volume) -> NDArray[np.uint8]:
    """New marks, and those of earlier corrections where there is none."""
    if not (folder / CORRECTIONS).is_file():
        return marked
    return np.where(marked > 0, marked, _map_of(folder / CORRECTIONS, volume))


def _new_report(
    report: dict[str, Any], correction: Correction, record: CorrectionRecord, volume: Volume
) -> dict[str, Any]:
    """The report of a correction, with what the report before it says of the run's input and of earlier corrections."""
    new = correction.report
    whole = {
        **new,
        "warnings": [*notes_of(volume), *new["warnings"]],
        "provenance": {**new["provenance"], **_kept(report["provenance"])},
    }
    return with_corrections(whole, [*corrections_of(report), record])


def _model_of(told: dict[str, Any], device: str) -> Model:
    model = load_model(str(told.get("model_folder") or told["model"]), device)
    if weights_sha256(model.description) != told["sha256"]:
        raise DiffusionSegmentError(
            ErrorCode.WEIGHTS_CORRUPT,
            f"The result was made by {told['model']} {told['version']}; installed: {model.description.version}.",
            hint="Segment the scan again.",
        )
    return model


def _session_of(
    folder: Path,
    given: RunInput,
    report: dict[str, Any],
    *,
    progress: Progress,
    say: Callable[[str], None],
) -> tuple[Session, Path | None]:
    """The session that a result keeps, with its file, or that of a new run."""
    path = folder / SESSION
    try:
        session = open_kept_session(path, given.volume, given.model, given.options)
        say("The session that was kept is opened; the case does not run again.")
        return session, path
    except UnusableSessionError as error:
        if path.exists():
            say(f"Note: the session in {path} is not used: {error}.")
    say(f"The case runs again{_about(report)}; with `segment --keep-session` it need not.")
    return open_session(given.volume, given.model, given.options, progress=progress), None


def _about(report: dict[str, Any]) -> str:
    """How long the run took, in words; nothing where the report does not tell."""
    for name in ("run_timings_s", "timings_s"):
        timings = report.get(name)
        total = timings.get("total") if isinstance(timings, dict) else None
        if isinstance(total, (int, float)) and 0 < total < _LONGEST_RUN_S:
            return f", about {total:.0f} s" if total < 120 else f", about {total / 60:.0f} min"
    return ""


def _changes(
    record: CorrectionRecord,
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    report: dict[str, Any],
    voxel_ml: float,
) -> Iterator[str]:
    """A table of the organs that changed."""
    if not record.organs:
        yield "No label changed."
        return
    counts = [np.bincount(labels.ravel(), minlength=256) for labels in (before, after)]
    values = {organ["name"]: organ["value"] for organ in report["organs"]}
    yield f"{'Corrected':<26}{'before':>12}{'after':>12}   voxels changed"
    for organ in record.organs:
        was, now = (f"{float(count[values[organ.name]]) * voxel_ml:.1f} mL" for count in counts)
        changed = f"{organ.gained_voxels + organ.lost_voxels} (+{organ.gained_voxels} -{organ.lost_voxels})"
        yield f"{organ.title:<26}{was:>12}{now:>12}   {changed}"


def _report_of(folder: Path) -> dict[str, Any]:
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        told = report["provenance"]
        if not {"model", "version", "sha256", "seed", "samples", "steps"} <= set(told):
            raise KeyError("provenance")
        _ = [_word(told.get(name)) for name in ("model", "version", "sha256", *_KEPT)]
        corrections_of(report)
        return dict(report)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING, f"{folder} holds no finished result.", hint="Name a folder that `segment` wrote."
        ) from error


def _scan_of(told: dict[str, Any], scan: Path | None) -> Path:
    found = scan or (Path(told["input"]) if told.get("input") else None)
    if found is None or not found.exists():
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING, f"The scan {found or 'of this result'} is gone.", hint="Name it with --scan."
        )
    return found


def _map_of(path: Path, scan: Volume) -> NDArray[np.uint8]:
    return read_label_map(path, scan, hint=_DRAW_HERE)


def _options_of(told: dict[str, Any], volume: Volume) -> SegmentOptions:
    """The options of the run that the report tells.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE for a report whose entries are of another type.
    """
    start = told.get("abar_start")
    try:
        options = SegmentOptions(
            samples=max(1, int(told["samples"])),
            steps=max(1, int(told["steps"])),
            seed=int(told["seed"]),
            sampler=_word(told.get("sampler")),
            schedule=_word(told.get("schedule")),
            abar_start=None if start is None else float(start),
            organs=tuple(_word(name) or "" for name in told["organs"]) if told.get("organs") else None,
            region=tuple(float(value) for value in told["region"]) if told.get("region") else None,
            force=True,
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE, f"{REPORT} of the result is damaged.", hint="Segment the scan again."
        ) from error
    if told.get("presegmentation"):
        options = replace(options, presegmentation=_map_of(Path(told["presegmentation"]), volume))
    return options


def _word(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no name")
    return value


def _kept(told: dict[str, Any]) -> dict[str, Any]:
    return {key: told[key] for key in _KEPT if key in told}


def _result(
    folder: Path, volume: Volume, correction: Correction, labels: NDArray[np.uint8], report: dict[str, Any]
) -> Segmentation:
    """The maps of a folder with what the correction changed in them."""
    uncertainty, information = (_float_map(folder / name, volume) for name in (UNCERTAINTY, MUTUAL_INFORMATION))
    uncertainty[correction.box] = correction.uncertainty
    information[correction.box] = correction.mutual_information
    return Segmentation(labels, uncertainty, information, correction.regions, None, report)


def _also(folder: Path, volume: Volume, marks: NDArray[np.uint8]) -> Callable[[Path], None]:
    """Writes all marks in force, and the body coordinates, which corrections do not change."""

    def write(staging: Path) -> None:
        write_map(Volume(marks, volume.index_to_lps), staging / CORRECTIONS)
        if (folder / BODYPART).is_file():
            shutil.copyfile(folder / BODYPART, staging / BODYPART)

    return write


def _float_map(path: Path, scan: Volume) -> NDArray[np.float32]:
    laid = laid_on(read_volume(path), scan, what=f"{path} and the scan", hint=_DRAW_HERE)
    return np.array(laid, dtype=np.float32)
