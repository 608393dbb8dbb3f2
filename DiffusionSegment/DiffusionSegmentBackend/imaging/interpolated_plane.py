"""A map of any geometry, interpolated linearly in a plane of a scan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from .volume import Volume, same_geometry

# Positions at the edge of a map are inside, whatever they were rounded to.
_ROUNDING_VOXELS = 1e-3


def interpolated_plane(volume: Volume, scan: Volume, plane: int) -> NDArray[np.float32]:
    """The values (y, x), float32, of a map at the voxels of one plane (k) of a scan; 0 outside the map.

    Voxels of the map extend half a step beyond their centres, with a constant value.
    """
    if same_geometry(volume, scan):
        return np.asarray(volume.array[plane], dtype=np.float32)
    rows, columns = scan.array.shape[1:]
    to_map = np.linalg.inv(volume.index_to_lps) @ scan.index_to_lps
    j, i = np.indices((rows, columns), dtype=np.float64)
    positions = to_map[:3, :3] @ np.stack([i.ravel(), j.ravel(), np.full(i.size, float(plane))]) + to_map[:3, 3:]
    size = np.array(volume.shape_ijk)[:, None]
    inside = np.all((positions > -0.5 - _ROUNDING_VOXELS) & (positions < size - 0.5 + _ROUNDING_VOXELS), axis=0)
    values = map_coordinates(
        np.asarray(volume.array, dtype=np.float32), positions[::-1], order=1, mode="nearest", prefilter=False
    )
    result: NDArray[np.float32] = np.where(inside, values, np.float32(0)).reshape(rows, columns)
    return result


def overlaps(volume: Volume, scan: Volume) -> bool:
    """Whether the boxes of a map and of a scan have any point in common, in the axes of the scan."""
    ends = np.array(np.meshgrid(*([-0.5, n - 0.5] for n in volume.shape_ijk), indexing="ij")).reshape(3, -1)
    to_scan = np.linalg.inv(scan.index_to_lps) @ volume.index_to_lps
    corners = to_scan[:3, :3] @ ends + to_scan[:3, 3:]
    low, high = corners.min(axis=1), corners.max(axis=1)
    return bool(np.all(high > -0.5) and np.all(low < np.array(scan.shape_ijk) - 0.5))
