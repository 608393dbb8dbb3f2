"""Refusals that need a look at the scan's values or at what was found in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DiffusionSegmentError, ErrorCode
from .description import ModelDescription

_FAT_OR_AIR_HU = -50
_MIN_SHARE_BELOW = 0.01
_BODY_THRESHOLD = -0.9
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


def middle_of_body(coordinates_mm: Tensor, image: Tensor) -> float:
    """Median inferior-superior body coordinate in mm over tissue of coordinates (3, z, y, x), image (z, y, x)."""
    body = image > _BODY_THRESHOLD
    return float(coordinates_mm[2][body].median()) if bool(body.any()) else float("nan")


def check_body_part(coordinates_mm: Tensor, image: Tensor, description: ModelDescription) -> None:
    """Refuse a scan whose middle lies where none of the model's training scans had theirs.

    Raises:
        DiffusionSegmentError: BODY_PART_MISMATCH, naming how far off the scan is.
    """
    span = description.anatomy.body_z_mm
    if span is None:
        return
    middle = middle_of_body(coordinates_mm, image)
    if span[0] <= middle <= span[1]:
        return
    direction, distance = ("above", middle - span[1]) if middle > span[1] else ("below", span[0] - middle)
    where = f"lies {distance / 10:.0f} cm {direction} what" if np.isfinite(distance) else "shows no body that"
    raise DiffusionSegmentError(
        ErrorCode.BODY_PART_MISMATCH,
        f"The scan {where} {description.title} was trained on.",
        hint=f"Choose a model for this body part. {_FORCE_HINT}",
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
            hint=f"Choose a model for this body part. {_FORCE_HINT}",
        )
