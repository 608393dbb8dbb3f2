"""Is this a scan for the model? Refusals and warnings that need its values, or what was segmented in it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DiffusionSegmentError, ErrorCode
from ..models.layout import organ_layout_mm
from ..models.manifest import ModelDescription
from .prepare import BODY_THRESHOLD

# A CT in HU shows fat or air: some percent of its voxels lie below. An MR, which has no unit, is not negative.
_FAT_OR_AIR_HU = -50
_MIN_SHARE_BELOW = 0.01


def check_modality(array: NDArray, *, expected: str, stated: str | None) -> None:
    """Refuse what is not the model's modality, by the DICOM header where there is one, else by its values (k, j, i).

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


def shows_hounsfield(array: NDArray) -> bool:
    """Whether the values (k, j, i) are those of a CT in HU: at least a percent of them air or fat."""
    return float(np.mean(array < _FAT_OR_AIR_HU)) >= _MIN_SHARE_BELOW


def share_in_reach(coordinates_mm: Tensor, image: Tensor, span: tuple[float, float] | None) -> float | None:
    """Share of tissue whose inferior-superior body coordinate lies in `span`, 0..1; None without a span.

    Coordinates (3, z, y, x) in mm, image (z, y, x) in -1..1; 0 where there is no tissue.
    """
    if span is None:
        return None
    heights = coordinates_mm[2][image > BODY_THRESHOLD]
    return float(((heights >= span[0]) & (heights <= span[1])).float().mean()) if len(heights) else 0.0


def organ_confidence(probabilities: Tensor) -> float:
    """Mean probability of the most likely class over voxels where it is an organ; (classes, z, y, x) -> 0..1."""
    best = probabilities.max(dim=0)
    found = best.indices > 0
    return float(best.values[found].mean()) if found.any() else 0.0


class Verdict(str, Enum):
    """What the check says of a scan."""

    ACCEPT = "accept"
    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Finding:
    """A verdict and, unless it is to accept, why: one plain sentence, and the code of a refusal."""

    verdict: Verdict
    message: str = ""
    code: ErrorCode = ErrorCode.BODY_PART_MISMATCH


@dataclass(frozen=True)
class OrganMeasures:
    """What a pre-segmentation says of the scan: mL of organs, their mean probability 0..1, their layout in mm."""

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


def judge_body_part(share: float | None, description: ModelDescription) -> Finding:
    """By the share of the scan, 0..1, at the heights of the model's organs; None for a model without such heights."""
    limits = description.anatomy
    if share is None or share >= limits.usual_share_in_reach:
        return ACCEPTED
    low = f"only {100 * share:.0f} % of it lies at the level of the organs of {_named(description)}"
    if share < limits.min_share_in_reach:
        return Finding(Verdict.REFUSE, f"This scan shows another part of the body: {low}.")
    return Finding(Verdict.WARN, f"Unusual field of view: {low}. Check that the scan shows this part of the body.")


def judge_organs(measures: OrganMeasures, description: ModelDescription, *, share: float | None = None) -> Finding:
    """By the organs that were segmented; all limits stand in model.json.

    Where the layout of the organs can be judged, it decides, and low confidence is no more than a warning (see
    the report): tumours and odd fields of view lower it too. Elsewhere confidence decides. `share`, as for
    `judge_body_part`, tells the reasons of such a refusal apart: at the right level of the body it is the appearance.
    """
    limits = description.anatomy
    layout = measures.layout_mm if limits.max_layout_mm is not None else None
    unknown = layout is None and measures.confidence < limits.least_confidence
    if measures.organ_ml < limits.least_organ_ml or unknown:
        return _without_organs(measures, description, share)
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


def _without_organs(measures: OrganMeasures, description: ModelDescription, share: float | None) -> Finding:
    """The refusal of a scan in which hardly an organ was found, or none with confidence."""
    few = measures.organ_ml < description.anatomy.least_organ_ml
    seen = f"{measures.organ_ml:.1f} mL of organs" if few else f"a mean confidence of {100 * measures.confidence:.0f} %"
    found = f"{_named(description)} finds {seen}."
    if share is not None and share < description.anatomy.usual_share_in_reach:
        return Finding(Verdict.REFUSE, f"This scan shows another part of the body: {found}")
    outside = "outside the training distribution (unusual contrast, dose or disease"
    if share is None:
        reason = f"This scan is {outside}, or another part of the body): {found}"
    else:
        reason = f"This scan shows the right part of the body, but its appearance is {outside}): {found}"
    return Finding(Verdict.REFUSE, reason, ErrorCode.UNUSUAL_APPEARANCE)


def _named(description: ModelDescription) -> str:
    return f'the model "{description.title}"'


def heeded(finding: Finding, *, force: bool) -> list[str]:
    """The warnings of a finding, none or one; a refusal that is overruled by `force` is a warning as well.

    Raises:
        DiffusionSegmentError: BODY_PART_MISMATCH or UNUSUAL_APPEARANCE for a refusal.
    """
    if finding.verdict is Verdict.REFUSE and not force:
        raise DiffusionSegmentError(finding.code, finding.message, hint=_HINTS[finding.code])
    if finding.verdict is Verdict.REFUSE:
        return [f"Segmented on request, although it would have been refused: {finding.message}"]
    return [finding.message] if finding.verdict is Verdict.WARN else []
