"""Refusals that need a look at the scan's values or at what was found in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DiffusionSegmentError, ErrorCode

_FAT_OR_AIR_HU = -50
_MIN_SHARE_BELOW = 0.01
_MIN_ORGAN_ML = 50.0
_MIN_CONFIDENCE = 0.88
_FORCE_HINT = "If you are sure, run again with --force."


def check_modality(array: NDArray, *, expected: str, stated: str | None) -> None:
    """Refuse what is not the model's modality, by the DICOM header where there is one, else by its values.

    A CT in HU shows fat or air: some percent of its voxels lie below -50; an MR has none.

    Raises:
        DiffusionSegmentError: MODALITY.
    """
    if stated is not None and stated != expected:
        raise DiffusionSegmentError(
            ErrorCode.MODALITY, f"This is {stated}, but the model was trained on {expected}.", hint=_FORCE_HINT
        )
    if expected == "CT" and stated is None and float(np.mean(array < _FAT_OR_AIR_HU)) < _MIN_SHARE_BELOW:
        raise DiffusionSegmentError(
            ErrorCode.MODALITY,
            "These values are not Hounsfield units (no air, no fat): an MR, or a rescaled CT?",
            hint=_FORCE_HINT,
        )


def check_anatomy(pre: Tensor, *, voxel_ml: float, title: str) -> None:
    """Refuse a scan that does not show the model's organs, from its pre-segmentation (classes, z, y, x).

    Less than 50 mL of organs, or organs that the model does not believe in: in abdomens its mean confidence over them
    was 0.93 and more, in heads, chests and water at most 0.86.

    Raises:
        DiffusionSegmentError: BODY_PART_MISMATCH.
    """
    best = pre.max(dim=0)
    found = best.indices > 0
    confidence = float(best.values[found].mean()) if found.any() else 0.0
    if float(found.sum()) * voxel_ml < _MIN_ORGAN_ML or confidence < _MIN_CONFIDENCE:
        raise DiffusionSegmentError(
            ErrorCode.BODY_PART_MISMATCH,
            f"The scan shows none of the organs of {title}, or looks unlike all that the model knows.",
            hint=f"Choose a model for this body part. {_FORCE_HINT}",
        )
