"""Sheared scans, as with gantry tilt: the straight grid on which their maps are written, and the inverse.

ITK, and 3D Slicer with it, cannot read NIfTI files with sheared axes. The maps of such a scan are written on an
orthogonal grid with the scan's slices: rows and slices are shifted by whole voxels, with an error of at most half a
voxel, and without interpolation. Every voxel of the scan has a voxel of its own there, so the inverse is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .nifti_geometry import has_shear
from .volume import Volume

SHEARED_NOTE = (
    "The scan's axes are not at right angles (gantry tilt): the maps lie on a straight grid that holds the scan, "
    "because 3D Slicer reads no other NIfTI."
)


def notes_of(volume: Volume) -> list[str]:
    """Notes for users of the scan's maps on how the scan was read and on their geometry."""
    if not has_shear(volume.index_to_lps):
        return list(volume.notes)
    k, j, i = volume.array.shape[:3]
    # A shear of less than half a voxel from end to end is invisible.
    seen = straight_grid(volume.index_to_lps, (k, j, i)).shape != (k, j, i)
    return [*volume.notes, *([SHEARED_NOTE] if seen else [])]


@dataclass(frozen=True)
class StraightGrid:
    """An orthogonal grid that contains all voxels of a sheared scan.

    `row_shift` (k, j) and `slice_shift` (k,) are the shifts in voxels along i and j of each row and each slice of the
    scan. `shape` and `native_shape` are (k, j, i).
    """

    native_shape: tuple[int, int, int]
    shape: tuple[int, int, int]
    index_to_lps: NDArray[np.float64]
    row_shift: NDArray[np.intp]
    slice_shift: NDArray[np.intp]

    def straightened(self, array: NDArray[Any]) -> NDArray[Any]:
        """An array (k, j, i[, c]) of the scan on this grid, 0 outside the scan."""
        result = np.zeros((*self.shape, *array.shape[3:]), dtype=array.dtype)
        for native, straight in self._pieces():
            result[straight] = array[native]
        return result

    def sheared(self, array: NDArray[Any]) -> NDArray[Any]:
        """An array (k, j, i[, c]) on this grid in the scan's own geometry: the exact inverse of `straightened`."""
        result = np.zeros((*self.native_shape, *array.shape[3:]), dtype=array.dtype)
        for native, straight in self._pieces():
            result[native] = array[straight]
        return result

    def _pieces(self) -> Iterator[tuple[tuple[int, slice, slice], tuple[int, slice, slice]]]:
        """Indices of pieces in the scan and on the grid: slices whose rows have the same shift, else single rows."""
        _, rows, columns = self.native_shape
        for k, down in enumerate(self.slice_shift):
            uniform = bool(np.all(self.row_shift[k] == self.row_shift[k, 0]))
            for first, last in [(0, rows)] if uniform else [(j, j + 1) for j in range(rows)]:
                across = int(self.row_shift[k, first])
                target = (k, slice(first + down, last + down), slice(across, across + columns))
                yield (k, slice(first, last), slice(0, columns)), target


def straight_grid(index_to_lps: NDArray[np.float64], shape: tuple[int, int, int]) -> StraightGrid:
    """The straight grid of a scan (k, j, i): its axes after Gram-Schmidt orthogonalisation."""
    axes, lengths = np.linalg.qr(index_to_lps[:3, :3])
    signs = np.sign(np.diag(lengths))
    axes, lengths = axes * signs, lengths * signs[:, None]
    k, j = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]
    # A = Q R: a step along k is also R[1, 2] mm along the straight j, and so on.
    row_shift = np.rint((lengths[0, 1] * j + lengths[0, 2] * k) / lengths[0, 0]).astype(np.intp)
    slice_shift = np.rint(lengths[1, 2] * k[:, 0] / lengths[1, 1]).astype(np.intp)
    first = np.array([row_shift.min(), slice_shift.min(), 0])
    matrix = index_to_lps.copy()
    matrix[:3, :3] = axes * np.diag(lengths)
    matrix[:3, 3] += matrix[:3, :3] @ first
    return StraightGrid(
        native_shape=shape,
        shape=(shape[0], shape[1] + int(np.ptp(slice_shift)), shape[2] + int(np.ptp(row_shift))),
        index_to_lps=matrix,
        row_shift=row_shift - first[0],
        slice_shift=slice_shift - first[1],
    )


def straightened(volume: Volume) -> Volume:
    """A volume (k, j, i[, c]) with an orthogonal grid: itself, or on its straight grid if it is sheared."""
    if not has_shear(volume.index_to_lps):
        return volume
    k, j, i = volume.array.shape[:3]
    grid = straight_grid(volume.index_to_lps, (k, j, i))
    return Volume(grid.straightened(volume.array), grid.index_to_lps, volume.notes)
