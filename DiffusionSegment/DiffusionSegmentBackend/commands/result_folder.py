"""The result of a run on disk: its maps as NIfTI, and report.json."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..schema.output_kinds import BODYPART, MUTUAL_INFORMATION, REGIONS, REPORT, SEGMENTATION, UNCERTAINTY

if TYPE_CHECKING:
    from ..pipeline.segment import Segmentation
    from ..schema.report import Report

_log = logging.getLogger(__name__)
# Seconds by stage of the pipeline -> seconds by stage of the whole run, asked for when the maps are written.
Timings = Callable[[Mapping[str, float]], dict[str, float]]


def recorded_passes(folder: Path) -> int:
    """How often the refiner passed over the scan of a result: its samples times their steps; 0 if that is not known."""
    try:
        provenance = json.loads((folder / REPORT).read_text(encoding="utf-8"))["provenance"]
        return int(provenance["samples"]) * int(provenance["steps"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return 0


def write_maps(
    result: Segmentation, index_to_lps: np.ndarray, staging: Path, *, timings: Timings | None = None
) -> Report:
    """Write the files of a result into a staging folder; returns the report as written.

    report.json is written as the last; with `timings` its `timings_s` are those of the whole run.
    """
    from ..imaging.volume import Volume
    from ..imaging.volume_io import write_map

    maps: dict[str, np.ndarray | None] = {
        SEGMENTATION: result.labels,
        UNCERTAINTY: result.uncertainty,
        MUTUAL_INFORMATION: result.mutual_information,
        REGIONS: result.regions,
        BODYPART: result.bodypart,
    }
    for name, array in maps.items():
        if array is not None:
            write_map(Volume(array, index_to_lps), staging / name)
    report = result.report
    if timings is not None:
        report = replace(report, timings_s=timings(report.timings_s))
    (staging / REPORT).write_text(json.dumps(report.to_json(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return report
