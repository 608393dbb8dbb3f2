"""Content of a case report, as text for HTML and PDF."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.volume import Volume
from ..pipeline.checks import shows_hounsfield
from ..schema.correction_record import CorrectionKind, CorrectionRecord
from ..schema.examination import Examination
from ..schema.provenance import LOCAL_PATHS
from ..schema.report import ReviewRegion
from ..schema.review_state import OrganState, ReviewState
from .case import Case, Organ, case_on_scan
from .colours import distinct_colours
from .views import SOFT_TISSUE_HU, AxialView, axial_view

TITLE = "Segmentation report"
NOT_FOR_DIAGNOSIS = "Not for diagnosis."
_MAX_FINDINGS = 4
_MAX_CORRECTIONS = 4
_MAX_ORGANS = 5
# Smaller volumes are formatted as 0.0 mL.
_SHOWN_ML = 0.05
_SPARE_COLOURS = "tab20"
_UNFINISHED = (OrganState.NOT_REVIEWED, OrganState.NEEDS_WORK)
_PROVENANCE_NAMES = {
    "software": "Software",
    "model": "Model",
    "version": "Model version",
    "sha256": "Weights (sha256)",
    "seed": "Seed",
    "samples": "Samples",
    "steps": "Steps per sample",
    "schedule": "Schedule",
    "sampler": "Sampler",
    "abar_start": "Start (alpha_bar)",
    "organs": "Organs",
    "region": "Region of interest",
    "device": "Device",
    "precision": "Precision",
    "torch": "PyTorch",
    "input": "Input",
    "presegmentation": "Pre-segmentation",
    "series": "Series",
    "series_uid": "Series UID",
}
# May identify the patient: paths and series.
_IDENTIFYING = (*LOCAL_PATHS, "series", "series_uid")
_ALL = {"organs": "all", "region": "the whole scan"}
_MATRIX = 16


@dataclass(frozen=True)
class OrganRow:
    """One row of the table of organs.

    `colour` is 0..255, `before` the volume in the uncorrected result, if given, and `corrected` the volume that
    corrections added and removed, empty without any. `margin` is empty for an organ without one.
    """

    title: str
    colour: tuple[int, int, int]
    before: str | None
    volume: str
    interval: str
    confidence: str
    state: OrganState
    corrected: str = ""
    margin: str = ""


@dataclass(frozen=True)
class Finding:
    """A region to review: its sentence, the reader's decision, and its views by heading."""

    number: int
    sentence: str
    state: str
    position: str
    views: tuple[tuple[str, AxialView], ...]


@dataclass(frozen=True)
class CaseReport:
    """Content of the page.

    `colours` are 0..1 by label value; `provenance`, `facts` and `examination` are pairs of name and value. The
    `examination` holds patient, study and series, if known and not anonymous. `margins` says what the margins of the
    organs mean, empty without any.
    """

    scan_name: str
    examination: tuple[tuple[str, str], ...]
    facts: tuple[tuple[str, str], ...]
    rows: tuple[OrganRow, ...]
    findings: tuple[Finding, ...]
    regions: int
    colours: dict[int, tuple[float, float, float]]
    window: str
    warnings: tuple[str, ...]
    provenance: tuple[tuple[str, str], ...]
    corrections: tuple[str, ...] = ()
    margins: str = ""


def case_report(
    case: Case,
    scan: Volume,
    *,
    scan_name: str,
    date: datetime.date,
    examination: Examination | None = None,
    review: ReviewState | None = None,
    before: Case | None = None,
    require_review: bool = False,
) -> CaseReport:
    """Build the content of the page; without an `examination` it does not identify patient, study or series.

    With `before`, the regions are those of the uncorrected result, which the reader reviewed.

    Raises:
        DiffusionSegmentError: GEOMETRY when scan and results differ in geometry, INPUT_VALUES for a review
            of another result, or, with `require_review`, one that is not finished.
    """
    case = case_on_scan(case, scan, what="The scan and the result")
    if before is not None:
        before = case_on_scan(before, scan, what="The results before and after")
    review = review or ReviewState()
    regions = (before or case).regions
    review.check(organs=[organ.name for organ in case.organs], regions=len(regions))
    if require_review:
        _check_finished(case, review)
    colours = organ_colours(case)
    window = _window(case, scan)
    return CaseReport(
        scan_name=scan_name,
        examination=_examination(examination) if examination is not None else (),
        facts=_facts(case, date),
        rows=tuple(_row(organ, colours[organ.value], review, before, case) for organ in case.organs),
        findings=tuple(
            _finding(number, region, case, scan, review=review, before=before, window=window)
            for number, region in enumerate(regions[:_MAX_FINDINGS])
        ),
        regions=len(regions),
        colours={v: (r / 255, g / 255, b / 255) for v, (r, g, b) in colours.items()},
        window=_window_in_words(case, window),
        warnings=case.warnings,
        provenance=tuple(
            _provenance_row(key, value)
            for key, value in case.provenance.to_json().items()
            if examination is not None or key not in _IDENTIFYING
        ),
        corrections=_corrections(case.corrections),
        margins=_margins_explained(case),
    )


def organ_colours(case: Case) -> dict[int, tuple[int, int, int]]:
    """Drawing colours 0..255 by label value: those of the model, changed where two are too similar.

    If the model is not installed, they are those of matplotlib's cycle.
    """
    spare = (np.array(colormaps[_SPARE_COLOURS].colors) * 255).round().astype(int)  # type: ignore[attr-defined]
    standard = []
    for n, organ in enumerate(case.organs):
        red, green, blue = (int(v) for v in spare[n % len(spare)])
        standard.append(organ.colour or (red, green, blue))
    return dict(zip((organ.value for organ in case.organs), distinct_colours(standard), strict=True))


def _check_finished(case: Case, review: ReviewState) -> None:
    open_organs = [organ for organ in case.organs if organ.is_present and review.organ(organ.name) in _UNFINISHED]
    if open_organs:
        names = ", ".join(organ.title.lower() for organ in open_organs)
        raise DiffusionSegmentError(
            ErrorCode.INPUT_VALUES,
            f"The review is not finished: {names}.",
            hint="Accept or flag each organ, or ask for the report without a finished review.",
        )


def _window(case: Case, scan: Volume) -> tuple[float, float] | None:
    """Soft tissue for CT, None for MR, whose values have no unit; if the model is not installed, by the values."""
    is_ct = case.model.modality == "CT" if case.model else shows_hounsfield(scan.array)
    return SOFT_TISSUE_HU if is_ct else None


def _window_in_words(case: Case, window: tuple[float, float] | None) -> str:
    if window is not None:
        return f"CT, {window[0]:.0f} to {window[1]:.0f} HU"
    return f"{case.model.modality if case.model else 'MR'}, 1st to 99th percentile"


def _facts(case: Case, date: datetime.date) -> tuple[tuple[str, str], ...]:
    name = f"{case.provenance.plan.model} {case.provenance.software.version}"
    model = f"{case.model.title} ({name})" if case.model else name
    if case.reviewed is not None:
        model = f"{model}, which reviewed a segmentation from another source"
    return (("Model", model), ("Date of report", date.isoformat()))


def _examination(shown: Examination) -> tuple[tuple[str, str], ...]:
    facts = (
        ("Patient", shown.patient_name),
        ("Patient ID", shown.patient_id),
        ("Study date", shown.study_date),
        ("Series", shown.series_description),
    )
    return tuple((name, value) for name, value in facts if value)


def _row(organ: Organ, colour: tuple[int, int, int], review: ReviewState, before: Case | None, case: Case) -> OrganRow:
    low, high = organ.volume_interval_ml
    return OrganRow(
        title=organ.title,
        colour=colour,
        before=_volume_before(organ, before) if before else None,
        volume=_volume(organ),
        interval=f"{low:.1f} to {high:.1f}",
        confidence=f"{100 * organ.confidence:.0f} %" if organ.is_present else "-",
        state=review.organ(organ.name),
        corrected=_corrected(organ, case.corrections),
        margin=_margin(organ),
    )


def _margin(organ: Organ) -> str:
    """The margin in mm and the number of scans that it was measured on, as text."""
    if organ.margin is None or not organ.is_present:
        return ""
    missed = f", {organ.margin.missed} missed" if organ.margin.missed else ""
    return f"{organ.margin.mm:.0f} mm (n = {organ.margin.scans}{missed})"


def _margins_explained(case: Case) -> str:
    margin = next((organ.margin for organ in case.organs if _margin(organ)), None)
    if margin is None:
        return ""
    return (
        f"Margin: {100 * margin.contained:.0f} % of the organ lie within this distance of its segment in "
        f"{100 * margin.coverage:.0f} % of n scans that were held out in the training and show the organ where the "
        "segment is; in the others it was missed."
    )


def _corrected(organ: Organ, corrections: Sequence[CorrectionRecord]) -> str:
    """Volume of an organ that all corrections together added and removed, as text."""
    changes = [change for record in corrections for change in record.organs if change.name == organ.name]
    if not changes:
        return ""
    return _gain_and_loss(sum(change.gained_ml for change in changes), sum(change.lost_ml for change in changes))


def _corrections(records: Sequence[CorrectionRecord]) -> tuple[str, ...]:
    """The latest corrections, one line each, oldest first; earlier ones are counted."""
    earlier = len(records) - _MAX_CORRECTIONS
    first = (f"{earlier} earlier {'correction' if earlier == 1 else 'corrections'}.",) if earlier > 0 else ()
    return first + tuple(_correction(record) for record in records[-_MAX_CORRECTIONS:])


def _correction(record: CorrectionRecord) -> str:
    """One correction as a line, with its time to the minute in the recorded time zone."""
    when = datetime.datetime.fromisoformat(record.time)
    zone = "UTC" if when.utcoffset() == datetime.timedelta() else when.strftime("%z")
    how = "drawn by hand" if record.kind is CorrectionKind.EDITS else f"{record.marked_voxels} voxels marked"
    largest = sorted(record.organs, key=lambda organ: -(organ.gained_voxels + organ.lost_voxels))
    changes = [f"{organ.title.lower()} {_gain_and_loss(organ.gained_ml, organ.lost_ml)}" for organ in largest]
    changed = f"{record.changed_voxels} labels changed"
    more = len(changes) - _MAX_ORGANS
    organs = "; ".join([*changes[:_MAX_ORGANS], *([f"{more} more"] if more > 0 else [])])
    return f"{when:%Y-%m-%d %H:%M} {zone}".strip() + f": {how}, {changed}" + (f": {organs}." if organs else ".")


def _gain_and_loss(gained_ml: float, lost_ml: float) -> str:
    parts = [f"{sign}{value:.1f}" for sign, value in (("+", gained_ml), ("-", lost_ml)) if value >= _SHOWN_ML]
    return f"{' '.join(parts)} mL" if parts else f"< {2 * _SHOWN_ML:.1f} mL"


def _volume(organ: Organ) -> str:
    return f"{organ.volume_ml:.1f}" if organ.is_present else "not found"


def _volume_before(organ: Organ, before: Case) -> str:
    return next((_volume(other) for other in before.organs if other.name == organ.name), "-")


def _finding(
    index: int,
    region: ReviewRegion,
    case: Case,
    scan: Volume,
    *,
    review: ReviewState,
    before: Case | None,
    window: tuple[float, float] | None,
) -> Finding:
    shown = [("Before", before), ("After", case)] if before else [("", case)]
    views = tuple(
        (
            heading,
            axial_view(
                scan, shown_case.labels, shown_case.uncertainty, centre_lps_mm=region.centroid_lps_mm, window=window
            ),
        )
        for heading, shown_case in shown
    )
    height = views[0][1].height_mm
    position = f"axial, {'S' if height >= 0 else 'I'} {abs(height):.1f} mm"
    return Finding(index + 1, region.sentence, review.region(index).value, position, views)


def _provenance_row(key: str, value: Any) -> tuple[str, str]:
    """Name and value of an entry of the provenance; a region is given by its sides and its centre."""
    name = _PROVENANCE_NAMES.get(key, key)
    if value is None and key in _ALL:
        return name, _ALL[key]
    if key == "region" and isinstance(value, list) and len(value) == _MATRIX:
        matrix = np.array(value, float).reshape(4, 4)
        sides = " x ".join(f"{2 * side:.0f}" for side in np.linalg.norm(matrix[:3, :3], axis=0))
        centre = ", ".join(f"{coordinate:.0f}" for coordinate in matrix[:3, 3])
        return name, f"{sides} mm around ({centre}) LPS"
    if key == "organs" and isinstance(value, list):
        return name, ", ".join(str(organ) for organ in value)
    return name, _words(value)


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def scan_name_of(path: Path) -> str:
    """The name of its file or folder."""
    return path.resolve().name
