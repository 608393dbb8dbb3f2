"""The voxels of a box before and after a change, compressed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .box import Box, boxAround
from .packed_array import PackedArray, pack

_EMPTY_BOX = Box((0, 0, 0), (0, 0, 0))
# Slices compared at a time: a mask of the whole scan would cost more than the comparison.
_SLICES = 16


@dataclass(frozen=True)
class Patch:
    """The voxels of a box before and after."""

    box: Box
    before: PackedArray
    after: PackedArray

    @property
    def bytes(self) -> int:
        """Compressed size of the voxels."""
        return len(self.before.data) + len(self.after.data)

    def sides(self, backwards: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        """The voxels that the change left, and those that replace them when it is undone (`backwards`) or redone."""
        sides = self.after.unpack(), self.before.unpack()
        return sides if backwards else sides[::-1]


def patchOf(before: NDArray[Any], after: NDArray[Any]) -> Patch | None:
    """The smallest box with all voxels (k, j, i) that differ; None where there is none."""
    box = _EMPTY_BOX
    for first in range(0, len(before), _SLICES):
        part = slice(first, first + _SLICES)
        changed = boxAround(before[part] != after[part])
        if changed is not None:
            k, j, i = changed.start
            box = box.joined(Box.ofShape(changed.shape, (first + k, j, i)))
    return None if box.empty else Patch(box, pack(before[box.slices]), pack(after[box.slices]))


def wholePatch(before: NDArray[Any], after: NDArray[Any]) -> Patch:
    """All voxels of two arrays, whose shapes may differ."""
    return Patch(Box.ofShape(after.shape), pack(np.asarray(before)), pack(np.asarray(after)))
