"""A result folder as a report needs it: the maps, the organs with the colours of their model, the regions of doubt."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.alignment import align_to_scan
from ..imaging.volume import Volume, check_same_geometry
from ..imaging.volume_io import read_volume
from ..models.manifest import ModelDescription, find_model, read_description
from ..schema.correction_record import CorrectionRecord, corrected_organs, corrections_of
from ..schema.output_kinds import REPORT, SEGMENTATION, UNCERTAINTY

OTHER_SCAN = "Give the scan that the result was made from."
_NEEDED = ("software", "model", "version", "sha256")


@dataclass(frozen=True)
class Organ:
    """One organ of a result; volumes in mL, `interval_ml` of 90 %, `confidence` 0..1; `colour` 0..255 where known."""

    value: int
    name: str
    title: str
    volume_ml: float
    interval_ml: tuple[float, float]
    confidence: float
    colour: tuple[int, int, int] | None

    @property
    def found(self) -> bool:
        """Whether any voxel has this label."""
        return self.volume_ml > 0


@dataclass(frozen=True)
class Region:
    """A region of doubt: what may be wrong in words, and a point inside it."""

    sentence: str
    centroid_lps_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Case:
    """A finished run: its maps in the scan's geometry, and what report.json says. `model` where it is installed.

    `corrections` are those of readers, oldest first.
    """

    labels: Volume
    uncertainty: Volume
    organs: tuple[Organ, ...]
    regions: tuple[Region, ...]
    warnings: tuple[str, ...]
    provenance: dict[str, Any]
    model: ModelDescription | None
    corrections: tuple[CorrectionRecord, ...] = ()

    @property
    def corrected(self) -> frozenset[str]:
        """Names of the organs that a reader's corrections changed."""
        return corrected_organs(self.corrections)

    @property
    def series_uid(self) -> str | None:
        """The DICOM series that was segmented, as `read_volume` takes it; None where the report names none."""
        named = self.provenance.get("series_uid")
        return named if isinstance(named, str) else None


def read_case(folder: Path) -> Case:
    """Read a result folder of `segment` or `correct`.

    Raises:
        DiffusionSegmentError: INPUT_MISSING for an unfinished result, INPUT_UNREADABLE for a damaged one, GEOMETRY
            when its maps do not lie in the same place.
    """
    missing = [name for name in (REPORT, SEGMENTATION, UNCERTAINTY) if not (folder / name).is_file()]
    if missing:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING,
            f"{folder} is not a finished result: it holds no {missing[0]}.",
            hint="Give the output folder of `diffusion-segment segment`.",
        )
    labels = read_volume(folder / SEGMENTATION)
    if not np.issubdtype(labels.array.dtype, np.integer):
        raise DiffusionSegmentError(
            ErrorCode.INPUT_VALUES, f"{folder / SEGMENTATION} holds no labels.", hint="Run the segmentation again."
        )
    uncertainty = read_volume(folder / UNCERTAINTY)
    check_same_geometry(labels, uncertainty, what=f"The labels and the uncertainty of {folder}", hint=OTHER_SCAN)
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        return _parse(report, labels, uncertainty)
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE,
            f"{folder / REPORT} is damaged ({type(error).__name__}: {error}).",
            hint="Run the segmentation again.",
        ) from error


def _parse(report: dict[str, Any], labels: Volume, uncertainty: Volume) -> Case:
    provenance = dict(report["provenance"])
    lacking = [key for key in _NEEDED if not isinstance(provenance.get(key), str)]
    if lacking:
        raise KeyError(f"provenance.{lacking[0]}")
    model = installed_model(str(provenance.get("model_folder") or provenance["model"]))
    colours = {str(item["name"]): item.get("colour") for item in model.raw["labels"]} if model else {}
    return Case(
        labels=labels,
        uncertainty=uncertainty,
        organs=tuple(_organ(item, colours.get(item["name"])) for item in report["organs"]),
        regions=tuple(_region(item) for item in report["review"]),
        warnings=tuple(str(text) for text in report["warnings"]),
        provenance=provenance,
        model=model,
        corrections=corrections_of(report),
    )


def case_on_scan(case: Case, scan: Volume, *, what: str) -> Case:
    """The case with its maps in the scan's own (k, j, i), which may have its axes in another order; `what` names both.

    Raises:
        DiffusionSegmentError: GEOMETRY when scan and result do not lie in the same place.
    """
    labels, uncertainty = (
        Volume(align_to_scan(volume, scan, what=what, hint=OTHER_SCAN), scan.index_to_lps)
        for volume in (case.labels, case.uncertainty)
    )
    return replace(case, labels=labels, uncertainty=uncertainty)


def installed_model(name: str) -> ModelDescription | None:
    """The description of a model, or None where it is not installed here."""
    try:
        return read_description(find_model(name))
    except DiffusionSegmentError as error:
        if error.code is ErrorCode.MODEL_UNKNOWN:
            return None
        raise


def _organ(item: dict[str, Any], colour: list[int] | None) -> Organ:
    low, high = item["volume_interval_ml"]
    return Organ(
        value=int(item["value"]),
        name=str(item["name"]),
        title=str(item["title"]),
        volume_ml=float(item["volume_ml"]),
        interval_ml=(float(low), float(high)),
        confidence=float(item["confidence"]),
        colour=None if colour is None else (int(colour[0]), int(colour[1]), int(colour[2])),
    )


def _region(item: dict[str, Any]) -> Region:
    x, y, z = (float(v) for v in item["centroid_lps_mm"])
    return Region(sentence=str(item["sentence"]), centroid_lps_mm=(x, y, z))
