"""Checks that a scan suits the model, by its values and by the pre-segmentation: refusals and warnings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.volume import Box
from ..models.layout import organ_layout_mm
from ..models.manifest import ModelDescription
from .prepare import BODY_THRESHOLD

# In a CT in HU, at least a percent of the voxels is fat or air. The values of MR are not negative.
_FAT_OR_AIR_HU = -50
_MIN_FAT_OR_AIR = 0.01


def check_modality(array: NDArray[Any], *, expected: str, stated: str | None) -> None:
    """Refuse a scan (k, j, i) of another modality than `expected`, by the DICOM header if `stated`, else by its values.

    Raises:
        DiffusionSegmentError: MODALITY.
    """
    if stated is not None and stated != expected:
        raise DiffusionSegmentError(
            ErrorCode.MODALITY,
            f"This is {stated}, but the model was trained on {expected}.",
            hint=f"Choose a model for {stated}, if there is one.",
        )
    if stated is not None or shows_hounsfield(array) == (expected == "CT"):
        return
    if expected == "CT":
        raise DiffusionSegmentError(
            ErrorCode.MODALITY,
            "These values are not Hounsfield units (no air, no fat): this is an MR or a rescaled CT.",
            hint="Use a CT in Hounsfield units.",
        )
    raise DiffusionSegmentError(
        ErrorCode.MODALITY,
        f"These values are Hounsfield units (air or fat below 0): this is a CT. The model was trained on {expected}.",
        hint="Choose a model for CT, if there is one.",
    )


def shows_hounsfield(array: NDArray[Any]) -> bool:
    """Whether the values (k, j, i) are those of a CT in HU: at least a percent of them is air or fat."""
    return float(np.mean(array < _FAT_OR_AIR_HU)) >= _MIN_FAT_OR_AIR


def share_in_reach(coordinates_mm: Tensor, image: Tensor, span: tuple[float, float] | None) -> float | None:
    """Fraction of the tissue whose inferior-superior body coordinate lies in `span` (mm), 0..1; None without a span.

    `coordinates_mm` is (3, z, y, x), `image` (z, y, x) in -1..1. An image without tissue gives 0.
    """
    if span is None:
        return None
    heights = coordinates_mm[2][image > BODY_THRESHOLD]
    return float(((heights >= span[0]) & (heights <= span[1])).float().mean()) if len(heights) else 0.0


def organ_confidence(probabilities: Tensor) -> float:
    """Mean probability of the most likely class over voxels where it is an organ; (classes, z, y, x) -> 0..1."""
    best = probabilities.max(dim=0)
    organs = best.indices > 0
    return float(best.values[organs].mean()) if organs.any() else 0.0


class Verdict(StrEnum):
    """Outcome of a check."""

    ACCEPT = "accept"
    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Finding:
    """A verdict, the reason in one sentence unless it is ACCEPT, and the error code and hint of a refusal."""

    verdict: Verdict
    message: str = ""
    code: ErrorCode = ErrorCode.BODY_PART_MISMATCH
    hint: str = ""


@dataclass(frozen=True)
class OrganMeasures:
    """Measures of a pre-segmentation: mL of organs, their mean probability 0..1, and `organ_layout_mm`."""

    organ_ml: float
    confidence: float
    layout_mm: float | None


ACCEPTED = Finding(Verdict.ACCEPT)
_HINTS = {
    ErrorCode.BODY_PART_MISMATCH: "Choose a model for this part of the body.",
    ErrorCode.UNUSUAL_APPEARANCE: "Use another series of the same examination, if there is one.",
}


def organ_measures(pre: Tensor, description: ModelDescription) -> OrganMeasures:
    """Measures of a pre-segmentation (classes, z, y, x) on the model's grid."""
    labels = pre.argmax(dim=0)
    voxel_ml = float(np.prod(description.spacing_mm)) / 1000.0
    return OrganMeasures(
        float((labels > 0).sum()) * voxel_ml, organ_confidence(pre), organ_layout_mm(labels, description)
    )


def judge_side(box: Box, description: ModelDescription) -> Finding:
    """Judge a scan by the longest side of the box (z, y, x) of the model's grid that shows the body."""
    limit = description.anatomy.max_side_mm
    sides = zip(box, reversed(description.spacing_mm), strict=True)
    longest = max((side.stop - side.start) * step for side, step in sides)
    if limit is None or longest <= limit:
        return ACCEPTED
    return Finding(
        Verdict.REFUSE,
        f"This scan shows {longest:.0f} mm of the body; {_named(description)} was trained on small crops and takes at "
        f"most {limit:.0f} mm.",
        hint="Crop the scan around the organs of the model.",
    )


def judge_body_part(share: float | None, description: ModelDescription) -> Finding:
    """Judge a scan by the fraction of its tissue at the level of the model's organs, as from `share_in_reach`."""
    limits = description.anatomy
    if share is None or share >= limits.usual_share_in_reach:
        return ACCEPTED
    low = f"only {100 * share:.0f} % of it lies at the level of the organs of {_named(description)}"
    if share < limits.min_share_in_reach:
        return Finding(Verdict.REFUSE, f"This scan shows another part of the body: {low}.")
    return Finding(Verdict.WARN, f"Unusual field of view: {low}. Check that the scan shows this part of the body.")


def judge_organs(measures: OrganMeasures, description: ModelDescription, *, share: float | None = None) -> Finding:
    """Judge a scan by its segmented organs, with the limits of model.json.

    The layout of the organs decides where it can be measured; low confidence is then only a warning of the report,
    because tumours and unusual fields of view lower it too. Otherwise confidence decides. With `share`, as for
    `judge_body_part`, a refusal at the right level of the body is one for unusual appearance.
    """
    limits = description.anatomy
    layout = measures.layout_mm if limits.max_layout_mm is not None else None
    uncertain = layout is None and measures.confidence < limits.min_confidence
    if measures.organ_ml < limits.min_organ_ml or uncertain:
        return _unrecognised(measures, description, share)
    if layout is None or limits.max_layout_mm is None:
        return ACCEPTED
    distance = f"on average {layout:.0f} mm from their usual positions"
    if layout > limits.max_layout_mm:
        return Finding(
            Verdict.REFUSE,
            f"This scan shows another part of the body, or its orientation is wrong: what was segmented is not "
            f"arranged like the organs of {_named(description)} ({distance}).",
        )
    if limits.usual_layout_mm is not None and layout > limits.usual_layout_mm:
        return Finding(
            Verdict.WARN,
            f"Unusual anatomy: the organs lie {distance}, as after surgery or beside a large mass. Check each organ.",
        )
    return ACCEPTED


def _unrecognised(measures: OrganMeasures, description: ModelDescription, share: float | None) -> Finding:
    """The refusal of a scan with too small a volume or too low a confidence of organs."""
    few = measures.organ_ml < description.anatomy.min_organ_ml
    measure = (
        f"{measures.organ_ml:.1f} mL of organs" if few else f"a mean confidence of {100 * measures.confidence:.0f} %"
    )
    result = f"{_named(description)} finds {measure}."
    if share is not None and share < description.anatomy.usual_share_in_reach:
        return Finding(Verdict.REFUSE, f"This scan shows another part of the body: {result}")
    outside = "outside the training distribution (unusual contrast, dose or disease"
    if share is None:
        reason = f"This scan is {outside}, or another part of the body): {result}"
    else:
        reason = f"This scan shows the right part of the body, but its appearance is {outside}): {result}"
    return Finding(Verdict.REFUSE, reason, ErrorCode.UNUSUAL_APPEARANCE)


def _named(description: ModelDescription) -> str:
    return f'the model "{description.title}"'


def enforce(finding: Finding, *, force: bool) -> list[str]:
    """The warnings of a finding, none or one; with `force` a refusal becomes a warning.

    Raises:
        DiffusionSegmentError: BODY_PART_MISMATCH or UNUSUAL_APPEARANCE for a refusal.
    """
    if finding.verdict is Verdict.REFUSE and not force:
        raise DiffusionSegmentError(finding.code, finding.message, hint=finding.hint or _HINTS[finding.code])
    if finding.verdict is Verdict.REFUSE:
        return [f"Segmented on request, although it would have been refused: {finding.message}"]
    return [finding.message] if finding.verdict is Verdict.WARN else []
