"""Voxels that labels gained and lost between two label maps (numpy only: Slicer's process counts them too)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..schema.correction_record import CorrectionKind, CorrectionRecord, OrganNames, correction_record

_LABELS = 256


def gained_and_lost(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> tuple[list[int], list[int]]:
    """Voxels that each label value, 0..255, gained and lost between two label maps of one shape."""
    changed = before != after
    gained, lost = (np.bincount(labels[changed], minlength=_LABELS).tolist() for labels in (after, before))
    return gained, lost


def record_correction(
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    *,
    organs: Sequence[OrganNames],
    voxel_ml: float,
    marked_voxels: int,
    kind: CorrectionKind = CorrectionKind.MARKS,
    time: str | None = None,
) -> CorrectionRecord:
    """The record of what a correction changed, from the label maps before and after it; `time` is now unless given."""
    gained, lost = gained_and_lost(before, after)
    return correction_record(
        gained=gained,
        lost=lost,
        organs=organs,
        voxel_ml=voxel_ml,
        marked_voxels=marked_voxels,
        kind=kind,
        time=time,
    )
