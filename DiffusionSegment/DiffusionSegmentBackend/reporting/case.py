"""Result folders for reports: maps, organs with the colours of their model, regions to review."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.alignment import align_to_scan
from ..imaging.interpolated_plane import overlaps
from ..imaging.volume import Volume, same_geometry
from ..imaging.volume_io import read_volume
from ..models.manifest import ModelDescription, find_model, read_description
from ..schema.correction_record import CorrectionRecord, corrected_organs
from ..schema.output_kinds import REPORT, SEGMENTATION, UNCERTAINTY
from ..schema.provenance import Provenance
from ..schema.report import OrganResult, Report, ReviewRegion
from ..schema.reviewed_segmentation import ReviewedSegmentation

OTHER_SCAN = "Give the scan that the result was made from."


@dataclass(frozen=True, kw_only=True)
class Organ(OrganResult):
    """An organ of a result, and its colour 0..255 in the model, if known."""

    colour: tuple[int, int, int] | None

    @property
    def is_present(self) -> bool:
        """Whether any voxel has this label."""
        return self.volume_ml > 0


@dataclass(frozen=True)
class Case:
    """A finished run.

    Attributes:
        labels: the segmentation in the scan's geometry.
        uncertainty: the map of uncertainty, in a result folder in the scan's geometry, from the panel in its own.
        organs: the organs of the report.
        regions: the regions to review, largest score first.
        warnings: the warnings of the report.
        provenance: the provenance of the report.
        model: the description of the model, if it is installed.
        corrections: those of readers, oldest first.
        reviewed: the segmentation of another source that was reviewed, if it is no segmentation of ours.
    """

    labels: Volume
    uncertainty: Volume
    organs: tuple[Organ, ...]
    regions: tuple[ReviewRegion, ...]
    warnings: tuple[str, ...]
    provenance: Provenance
    model: ModelDescription | None
    corrections: tuple[CorrectionRecord, ...] = ()
    reviewed: ReviewedSegmentation | None = None

    @property
    def corrected(self) -> frozenset[str]:
        """Names of the organs that a reader's corrections changed."""
        return corrected_organs(self.corrections)

    @property
    def series_uid(self) -> str | None:
        """The DICOM series that was segmented, as an argument of `read_volume`; None if the report states none."""
        return self.provenance.source.series_uid


def read_case(folder: Path) -> Case:
    """Read a result folder of `segment` or `correct`.

    Raises:
        DiffusionSegmentError: INPUT_MISSING for an unfinished result, INPUT_UNREADABLE for a damaged one, GEOMETRY
            when its maps do not overlap.
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
    if not overlaps(uncertainty, labels):
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY, "The map of uncertainty lies outside the segmentation.", hint="Segment the scan again."
        )
    try:
        report = Report.from_json(json.loads((folder / REPORT).read_text(encoding="utf-8")))
        return _case(report, labels, uncertainty)
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE,
            f"{folder / REPORT} is damaged ({type(error).__name__}: {error}).",
            hint="Run the segmentation again.",
        ) from error


def _case(report: Report, labels: Volume, uncertainty: Volume) -> Case:
    model = installed_model(report.provenance.source.model_folder or report.provenance.plan.model)
    colours = {str(item["name"]): item.get("colour") for item in model.raw["labels"]} if model else {}
    return Case(
        labels=labels,
        uncertainty=uncertainty,
        organs=tuple(_with_colour(organ, colours.get(organ.name)) for organ in report.organs),
        regions=report.review,
        warnings=report.warnings,
        provenance=report.provenance,
        model=model,
        corrections=report.corrections,
        reviewed=report.reviewed,
    )


def _with_colour(organ: OrganResult, colour: list[int] | None) -> Organ:
    values = {item.name: getattr(organ, item.name) for item in fields(OrganResult)}
    return Organ(**values, colour=None if colour is None else (int(colour[0]), int(colour[1]), int(colour[2])))


def case_on_scan(case: Case, scan: Volume, *, what: str) -> Case:
    """The case with its labels aligned to the scan's own (k, j, i) axes; `what` names both in errors.

    The uncertainty is aligned as well where its voxels are those of the labels.

    Raises:
        DiffusionSegmentError: GEOMETRY when scan and result differ in geometry.
    """
    labels = Volume(align_to_scan(case.labels, scan, what=what, hint=OTHER_SCAN), scan.index_to_lps)
    if not same_geometry(case.labels, case.uncertainty):
        return replace(case, labels=labels)
    aligned = align_to_scan(case.uncertainty, scan, what=what, hint=OTHER_SCAN)
    return replace(case, labels=labels, uncertainty=Volume(aligned, scan.index_to_lps))


def installed_model(name: str) -> ModelDescription | None:
    """The description of a model, or None where it is not installed here."""
    try:
        return read_description(find_model(name))
    except DiffusionSegmentError as error:
        if error.code is ErrorCode.MODEL_UNKNOWN:
            return None
        raise
