"""Signed distance to the surface of a mask, in mm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .balls import Spacing

_EMPTY_MM = -1000.0


def signed_distance(mask: NDArray[np.bool_], spacing: Spacing) -> NDArray[np.float32]:
    """Distance in mm of every voxel (z, y, x) to the surface of a mask, positive inside; -1000 for an empty mask.

    The surface lies between the centres of voxels; a mask that reaches the edge of the array continues beyond it.
    """
    if not mask.any():
        return np.full(mask.shape, _EMPTY_MM, np.float32)
    half = 0.5 * min(spacing)
    inside = ndimage.distance_transform_edt(np.pad(mask, 1, mode="edge"), sampling=spacing)[1:-1, 1:-1, 1:-1]
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    signed: NDArray[np.float32] = np.where(mask, inside - half, half - outside).astype(np.float32)
    return signed
