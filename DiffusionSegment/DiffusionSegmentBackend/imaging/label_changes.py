"""Voxels that labels gained and lost between two label maps (numpy only: Slicer's process counts them too)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..schema.correction_record import CorrectionKind, CorrectionRecord, OrganChange

_LABELS = 256


class OrganNames(Protocol):
    """An organ of a report or of a model."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def title(self) -> str: ...  # noqa: D102
    @property
    def value(self) -> int: ...  # noqa: D102


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
    changes = (
        OrganChange(
            name=organ.name,
            title=organ.title,
            gained_voxels=gained[organ.value],
            lost_voxels=lost[organ.value],
            gained_ml=round(gained[organ.value] * voxel_ml, 2),
            lost_ml=round(lost[organ.value] * voxel_ml, 2),
        )
        for organ in organs
    )
    return CorrectionRecord(
        time=time or datetime.now(UTC).isoformat(timespec="seconds"),
        kind=kind,
        marked_voxels=marked_voxels,
        changed_voxels=sum(gained),
        organs=tuple(change for change in changes if change.gained_voxels or change.lost_voxels),
    )
