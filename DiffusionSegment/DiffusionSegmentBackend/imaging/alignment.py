"""Alignment of a map to the voxels of a scan: permuted and flipped axes, cropped maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DiffusionSegmentError, ErrorCode
from .nifti_geometry import has_shear
from .shear import straight_grid
from .volume import Volume, same_geometry

# Tolerance for rounded headers: 0.1 mm of an origin is less than this for any CT.
_MAX_OFFSET_VOXELS = 0.25


def align_to_scan(volume: Volume, scan: Volume, *, what: str, hint: str, whole: bool = True) -> NDArray[Any]:
    """The values of a map at the scan's own voxels (k, j, i), 0 outside the map, without interpolation.

    The map's voxels must be those of the scan, with a tolerance of a quarter voxel: with permuted or flipped axes,
    cropped, or on the straight grid of a sheared scan.

    Args:
        volume: the map.
        scan: the scan.
        what: names both in errors.
        hint: the next step in errors.
        whole: whether the map must cover the scan.

    Raises:
        DiffusionSegmentError: GEOMETRY, with the difference.
    """
    if volume.array.shape == scan.array.shape and same_geometry(volume, scan):
        return volume.array
    grid = straight_grid(scan.index_to_lps, _shape(scan.array)) if has_shear(scan.index_to_lps) else None
    orientation, shape = _orientation(volume, scan.index_to_lps), _shape(scan.array)
    if orientation is None and grid is not None:
        orientation, shape = _orientation(volume, grid.index_to_lps), grid.shape
    if orientation is None:
        raise _refusal(what, _difference(volume, scan), hint)
    if whole and not orientation.covers(shape):
        raise _refusal(what, "the map does not cover the whole scan", hint)
    aligned, lost = orientation.applied(volume.array, shape)
    if lost:
        raise _refusal(what, f"{lost} marked voxels of the map lie outside the scan", hint)
    return aligned if grid is None or shape != grid.shape else grid.sheared(aligned)


@dataclass(frozen=True)
class _Orientation:
    """Axis permutation, flips and offset of a map in a scan, in numpy's order (k, j, i).

    `axes[a]` of the map is axis a of the scan, flipped where `flips[a]`, beginning at voxel `start[a]`; `shape` is the
    map's after the permutation.
    """

    axes: tuple[int, ...]
    flips: tuple[bool, ...]
    start: tuple[int, ...]
    shape: tuple[int, ...]

    def covers(self, shape: tuple[int, int, int]) -> bool:
        """Whether the map has a value for every voxel of a scan of this shape."""
        spans = zip(self.start, self.shape, shape, strict=True)
        return all(start <= 0 and start + size >= needed for start, size, needed in spans)

    def applied(self, array: NDArray[Any], shape: tuple[int, int, int]) -> tuple[NDArray[Any], int]:
        """The map in a scan of this shape, and the number of its non-zero voxels outside the scan."""
        turned = array.transpose(*self.axes, *range(3, array.ndim))
        turned = turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]
        result = np.zeros((*shape, *array.shape[3:]), dtype=array.dtype)
        inner, outer = [], []
        for start, size, scan_size in zip(self.start, self.shape, shape, strict=True):
            low, high = max(start, 0), max(min(start + size, scan_size), max(start, 0))
            outer.append(slice(low, high))
            inner.append(slice(low - start, high - start))
        result[tuple(outer)] = turned[tuple(inner)]
        return result, int(np.count_nonzero(array) - np.count_nonzero(result))


def _orientation(volume: Volume, matrix: NDArray[np.float64]) -> _Orientation | None:
    """The orientation of the map in the voxels of a 4x4 `matrix`; None if its voxels differ."""
    exact = np.linalg.inv(matrix) @ volume.index_to_lps
    rounded = np.rint(exact)
    steps = rounded[:3, :3]
    if not (np.all(np.abs(steps).sum(axis=0) == 1) and np.all(np.abs(steps).sum(axis=1) == 1)):
        return None
    shape = np.array(volume.shape_ijk)
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * [*(shape - 1), 1]
    if np.abs((exact - rounded) @ corners.T).max() > _MAX_OFFSET_VOXELS:
        return None
    axes = np.abs(steps).argmax(axis=1)
    flips = steps.sum(axis=1) < 0
    start = rounded[:3, 3] - np.where(flips, shape[axes] - 1, 0)
    return _Orientation(
        axes=tuple(int(2 - axis) for axis in axes[::-1]),
        flips=tuple(bool(flip) for flip in flips[::-1]),
        start=tuple(int(value) for value in start[::-1]),
        shape=tuple(int(size) for size in shape[axes][::-1]),
    )


def _difference(volume: Volume, scan: Volume) -> str:
    """The difference of two geometries, as text."""
    ours, theirs = (np.sort(v.spacing) for v in (volume, scan))
    if not np.allclose(ours, theirs, rtol=1e-3, atol=1e-4):
        spacings = (" x ".join(f"{v:.4g}" for v in v.spacing) for v in (volume, scan))
        return f"their voxels measure {' and '.join(spacings)} mm"
    centres = (v.index_to_lps @ [*((np.array(v.shape_ijk) - 1) / 2), 1.0] for v in (volume, scan))
    apart = float(np.linalg.norm(np.subtract(*centres)[:3]))
    return f"their voxels lie differently, their centres {apart:.4g} mm apart"


def _refusal(what: str, difference: str, hint: str) -> DiffusionSegmentError:
    return DiffusionSegmentError(ErrorCode.GEOMETRY, f"{what} differ in geometry: {difference}.", hint=hint)


def _shape(array: NDArray[Any]) -> tuple[int, int, int]:
    k, j, i = array.shape[:3]
    return int(k), int(j), int(i)
