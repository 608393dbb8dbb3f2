"""Resampling of sheared scans, as with gantry tilt, to an orthogonal grid.

Arrays are (z, y, x); matrices map (x, y, z, 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

_MAX_COSINE = 0.01  # between two axes; rounding in headers stays far below
# Each voxel of the grid is the mean at eight points, so that it is hardly more blurred than on the scan's own axes.
_SUB_VOXELS = (-0.25, 0.25)


def is_sheared(index_to_lps: NDArray[np.float64]) -> bool:
    """Whether two axes of a volume are not at a right angle (by more than half a degree)."""
    axes = index_to_lps[:3, :3] / np.linalg.norm(index_to_lps[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > _MAX_COSINE)


def straight_box(
    index_to_lps: NDArray[np.float64], shape_ijk: NDArray[Any], spacing: tuple[float, float, float]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Voxels along x, y, z and the matrix to LPS mm of a grid along the patient's axes that covers a sheared scan."""
    ends = np.array(np.meshgrid(*([-0.5, n - 0.5] for n in shape_ijk), indexing="ij")).reshape(3, -1)
    corners = index_to_lps[:3, :3] @ ends + index_to_lps[:3, 3:]
    low, extent = corners.min(axis=1), np.ptp(corners, axis=1)
    matrix = np.diag([*spacing, 1.0])
    matrix[:3, 3] = low + 0.5 * np.array(spacing)
    return np.maximum(1, np.ceil(extent / np.array(spacing) - 1e-6)).astype(int), matrix


def sampled_straight(
    array: NDArray[np.float32], grid_to_array: NDArray[np.float64], shape: tuple[int, int, int]
) -> NDArray[np.float32]:
    """Linear interpolation of an array at the voxels of a grid; its lowest value outside."""
    outside = float(array.min(initial=0.0)) if array.size == 0 else float(array.min())
    # Voxels extend half a step beyond their centres.
    padded = np.pad(array, 1, mode="edge")
    total = np.zeros(shape, dtype=np.float32)
    for shift in np.array(np.meshgrid(*[_SUB_VOXELS] * 3)).reshape(3, -1).T:
        moved = grid_to_array[:3, :3] @ shift + grid_to_array[:3, 3]
        total += _affine(padded, grid_to_array[:3, :3], moved + 1, shape, order=1, outside=outside)
    return total * np.float32(1 / 8)


def nearest_straight(array: NDArray[Any], grid_to_array: NDArray[Any], shape: tuple[int, int, int]) -> NDArray[Any]:
    """The nearest voxel's value of an array at the voxels of a grid; 0 outside of it."""
    return _affine(array, grid_to_array[:3, :3], grid_to_array[:3, 3], shape, order=0, outside=0.0)


def _affine(
    array: NDArray[Any],
    axes: NDArray[Any],
    offset: NDArray[Any],
    shape: tuple[int, int, int],
    *,
    order: int,
    outside: float,
) -> NDArray[Any]:
    result: NDArray[Any] = affine_transform(
        array,
        axes[::-1, ::-1],
        offset=offset[::-1],
        output_shape=shape,
        order=order,
        mode="constant",
        cval=outside,
        prefilter=False,
    )
    return result
