"""Corrections from files: a result folder and a label map of marks become a corrected result folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DiffusionSegmentError, ErrorCode
from .imaging.label_maps import read_label_map
from .imaging.placement import laid_on
from .imaging.shear import notes_of
from .pipeline.correction import Correction, Corrections, correct
from .pipeline.model import load_model, weights_sha256
from .pipeline.options import SegmentOptions
from .pipeline.progress import Progress, silent
from .pipeline.segment import Segmentation, open_session
from .result_folder import (
    BODYPART,
    CORRECTIONS,
    MUTUAL_INFORMATION,
    REPORT,
    SEGMENTATION,
    UNCERTAINTY,
    check_writable,
    staged_folder,
    write_map,
    write_maps,
)
from .volume import Volume
from .volume_io import read_scan, read_volume

_DRAW_HERE = "Draw on the result's own geometry."
# What the report of a run says about its input.
_KEPT = ("input", "presegmentation", "series", "series_uid")


def correct_folder(
    folder: Path,
    corrections: Path,
    output: Path,
    *,
    scan: Path | None = None,
    series: str | None = None,
    locked: tuple[str, ...] = (),
    device: str = "auto",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Apply the marks in `corrections` to the result in `folder`; write the corrected result to `output`.

    The run is done again as the report tells, from the scan that it names or `scan`, so that nothing but the marks
    makes a difference. Marks of earlier corrections in `folder` stay in force. Returns the new report.

    Raises:
        DiffusionSegmentError: INPUT_MISSING for a folder that is no result or a scan that is gone, GEOMETRY, OPTION,
            WEIGHTS_CORRUPT when the model is not the one of the report, and whatever reading and writing raise.
    """
    check_writable(output)
    report = _report_of(folder)
    told = report["provenance"]
    # The run was made from these values, with --force if need be.
    volume = read_scan(_scan_of(told, scan), series=series or _word(told.get("series_uid"))).volume
    current = _map_of(folder / SEGMENTATION, volume)
    marks = _map_of(corrections, volume)
    if (folder / CORRECTIONS).is_file():
        earlier = _map_of(folder / CORRECTIONS, volume)
        marks = np.where(marks > 0, marks, earlier)
    model = load_model(str(told["model"]), device)
    if weights_sha256(model.description) != told["sha256"]:
        raise DiffusionSegmentError(
            ErrorCode.WEIGHTS_CORRUPT,
            f"The result was made by {told['model']} {told['version']}; installed: {model.description.version}.",
            hint="Segment the scan again.",
        )
    options = _options_of(told, volume)
    session = open_session(volume, model, options, progress=progress)
    values = tuple(model.description.label_named(name).value for name in locked)
    found, _ = correct(session, model, Corrections(labels=current, marks=marks, locked=values), progress=progress)
    found.report["warnings"] = [*notes_of(volume), *found.report["warnings"]]
    new_report = {**found.report, "provenance": {**found.report["provenance"], **_kept(told)}}
    _write(folder, output, volume, found, current, marks, new_report)
    return new_report


def _report_of(folder: Path) -> dict[str, Any]:
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        told = report["provenance"]
        if not {"model", "version", "sha256", "seed", "samples", "steps"} <= set(told):
            raise KeyError("provenance")
        _ = [_word(told.get(name)) for name in ("model", "version", "sha256", *_KEPT)]
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


def _write(
    folder: Path,
    output: Path,
    volume: Volume,
    found: Correction,
    current: NDArray[np.uint8],
    marks: NDArray[np.uint8],
    report: dict[str, Any],
) -> None:
    doubt, information = (_float_map(folder / name, volume) for name in (UNCERTAINTY, MUTUAL_INFORMATION))
    labels = current.copy()
    for whole, part in (
        (labels, found.labels),
        (doubt, found.uncertainty),
        (information, found.mutual_information),
    ):
        whole[found.box] = part
    with staged_folder(output) as staging:
        result = Segmentation(labels, doubt, information, found.regions, None, report)
        write_maps(result, volume.index_to_lps, staging)
        write_map(Volume(marks, volume.index_to_lps), staging / CORRECTIONS)
        if (folder / BODYPART).is_file():
            shutil.copyfile(folder / BODYPART, staging / BODYPART)


def _float_map(path: Path, scan: Volume) -> NDArray[np.float32]:
    laid = laid_on(read_volume(path), scan, what=f"{path} and the scan", hint=_DRAW_HERE)
    return np.array(laid, dtype=np.float32)
