"""Refusals that need a look at the scan's values or at what was found in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DiffusionSegmentError, ErrorCode
from .description import ModelDescription
from .prepare import BODY_THRESHOLD

_FAT_OR_AIR_HU = -50
_MIN_SHARE_BELOW = 0.01
_MIN_SHARE_IN_REACH = 0.1


def check_modality(array: NDArray, *, expected: str, stated: str | None) -> None:
    """Refuse what is not the model's modality, by the DICOM header where there is one, else by its values.

    A CT in HU shows fat or air: some percent of its voxels lie below -50; an MR has none.

    Raises:
        DiffusionSegmentError: MODALITY.
    """
    if stated is not None and stated != expected:
        raise DiffusionSegmentError(
            ErrorCode.MODALITY,
            f"This is {stated}, but the model was trained on {expected}.",
            hint=f"Choose a {expected}.",
        )
    if expected == "CT" and stated is None and float(np.mean(array < _FAT_OR_AIR_HU)) < _MIN_SHARE_BELOW:
        raise DiffusionSegmentError(
            ErrorCode.MODALITY,
            "These values are not Hounsfield units (no air, no fat): an MR, or a rescaled CT?",
            hint="Export the original CT.",
        )


def share_in_reach(coordinates_mm: Tensor, image: Tensor, span: tuple[float, float]) -> float:
    """Share of tissue whose inferior-superior body coordinate lies in `span`, 0..1.

    Coordinates (3, z, y, x) in mm, image (z, y, x) in -1..1; 0 where there is no tissue.
    """
    heights = coordinates_mm[2][image > BODY_THRESHOLD]
    return float(((heights >= span[0]) & (heights <= span[1])).float().mean()) if len(heights) else 0.0


def check_body_part(coordinates_mm: Tensor, image: Tensor, description: ModelDescription) -> None:
    """Refuse a scan that hardly shows the heights at which the model's organs lie; long scans that do are welcome.

    Raises:
        DiffusionSegmentError: BODY_PART_MISMATCH, with the share of the scan at those heights.
    """
    span = description.anatomy.body_z_mm
    if span is None:
        return
    share = share_in_reach(coordinates_mm, image, span)
    if share < _MIN_SHARE_IN_REACH:
        raise DiffusionSegmentError(
            ErrorCode.BODY_PART_MISMATCH,
            f"Only {100 * share:.0f} % of this scan lies where {description.title} has its organs.",
            hint="Choose a model for this body part.",
        )


def organ_confidence(probabilities: Tensor) -> float:
    """Mean probability of the most likely class over voxels where it is an organ; (classes, z, y, x) -> 0..1."""
    best = probabilities.max(dim=0)
    found = best.indices > 0
    return float(best.values[found].mean()) if found.any() else 0.0


def check_anatomy(pre: Tensor, *, voxel_ml: float, description: ModelDescription) -> None:
    """Refuse a scan that does not show the model's organs, from its pre-segmentation (classes, z, y, x).

    Too little of any organ, or organs that the model does not believe in; both limits stand in model.json.

    Raises:
        DiffusionSegmentError: BODY_PART_MISMATCH.
    """
    organ_ml = float((pre.argmax(dim=0) > 0).sum()) * voxel_ml
    limits = description.anatomy
    if organ_ml < limits.least_organ_ml or organ_confidence(pre) < limits.least_confidence:
        raise DiffusionSegmentError(
            ErrorCode.BODY_PART_MISMATCH,
            f"The scan shows none of the organs of {description.title}, or looks unlike all that the model knows.",
            hint="Choose a model for this body part.",
        )
