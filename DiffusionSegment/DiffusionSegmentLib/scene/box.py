"""Boxes of voxels in the grid of an input volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from numpy.typing import NDArray

_VOXEL_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Box:
    """Voxels from `start` up to, not including, `stop`, both (k, j, i)."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @classmethod
    def ofShape(cls, shape: tuple[int, ...], start: tuple[int, int, int] = (0, 0, 0)) -> Box:
        """The box of `shape` voxels from `start` on."""
        return cls(start, _triple(np.add(start, shape[:3])))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along k, j and i; 0 where the box is empty."""
        return _triple(np.maximum(np.subtract(self.stop, self.start), 0))

    @property
    def empty(self) -> bool:
        """Whether the box contains no voxel."""
        return min(self.shape) == 0

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The index of the box in an array that starts at voxel (0, 0, 0)."""
        return self.within(Box((0, 0, 0), self.stop))

    def within(self, outer: Box) -> tuple[slice, slice, slice]:
        """The index of this box in an array that holds the voxels of `outer`, which must contain it."""
        k, j, i = (
            slice(a - b, c - b) if c > a else slice(0, 0)
            for a, b, c in zip(self.start, outer.start, self.stop, strict=True)
        )
        return k, j, i

    def cut(self, other: Box) -> Box:
        """The intersection of both boxes, which may be empty."""
        return Box(_triple(np.maximum(self.start, other.start)), _triple(np.minimum(self.stop, other.stop)))

    def joined(self, other: Box) -> Box:
        """The smallest box around both."""
        if self.empty or other.empty:
            return other if self.empty else self
        return Box(_triple(np.minimum(self.start, other.start)), _triple(np.maximum(self.stop, other.stop)))

    def contains(self, other: Box) -> bool:
        """Whether every voxel of `other` lies in this box."""
        return other.empty or self.joined(other) == self


def boxAround(mask: NDArray[Any]) -> Box | None:
    """The smallest box around the voxels of `mask` (k, j, i) that are not zero; None for an empty mask."""
    start, stop = [], []
    for axis in range(3):
        start.append(0)
        stop.append(mask.shape[axis])
    # The slowest axis first: the slices that it excludes are not read again.
    for axis in range(3):
        inside = mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
        hit = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        if not len(hit):
            return None
        start[axis], stop[axis] = int(hit[0]), int(hit[-1]) + 1
    return Box(_triple(start), _triple(stop))


def boxOfGrid(
    shape: tuple[int, ...], gridToLPS: NDArray[np.float64], volumeToLPS: NDArray[np.float64], *, what: str
) -> Box:
    """The box that a cropped grid covers in a volume.

    Args:
        shape: of the grid, (k, j, i).
        gridToLPS, volumeToLPS: 4x4 matrices from (i, j, k, 1) to LPS mm.
        what: name of the grid at the start of the error message.

    Raises:
        DiffusionSegmentError: GEOMETRY unless the grids differ only by a shift of whole voxels.
    """
    relative = np.linalg.inv(volumeToLPS) @ gridToLPS
    shift = np.rint(relative[:3, 3])
    expected = np.eye(4)
    expected[:3, 3] = shift
    # A small error of the axes is largest at the far corner of the grid.
    corner = np.array([*shape[2::-1], 1.0])
    if np.abs((relative - expected) @ corner).max() > _VOXEL_TOLERANCE or (
        np.abs(relative[:3, 3] - shift).max() > _VOXEL_TOLERANCE
    ):
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY,
            f"{what} has another geometry than the input volume.",
            hint="Choose the volume that was segmented, and do not move it during the run.",
        )
    i, j, k = (int(n) for n in shift)
    return Box.ofShape(shape, (k, j, i))


def _triple(values: NDArray[Any] | list[int]) -> tuple[int, int, int]:
    k, j, i = (int(n) for n in values)
    return k, j, i
