"""A region of interest: an oriented box in the patient, outside which nothing is segmented."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.volume import Box, Grid
from ..models.tile_shape import TileShape
from .session import Prediction

# Context of the networks' input around the region, in voxels of the trunk's grid.
_CONTEXT_VOXELS = 16


def region_mask(region: tuple[float, ...], grid: Grid) -> Tensor:
    """Mask (z, y, x) of the grid voxels whose centre lies in an oriented box.

    `region` is the 4x4 matrix, row by row, from the cube -1..1 to LPS mm.

    Raises:
        DiffusionSegmentError: OPTION for a matrix that is singular or not 4x4, GEOMETRY for a box outside the scan.
    """
    matrix = np.array(region, dtype=np.float64)
    if matrix.size != 16 or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix.reshape(4, 4))) < 1e-6:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, "The region of interest has no volume.", hint="Draw it again, or run without it."
        )
    to_box = np.linalg.inv(matrix.reshape(4, 4)) @ grid.index_to_lps
    z, y, x = np.ogrid[: grid.shape[0], : grid.shape[1], : grid.shape[2]]
    inside = np.ones(grid.shape, dtype=bool)
    for row in to_box[:3]:
        inside &= np.abs(row[0] * x + row[1] * y + row[2] * z + row[3]) <= 1
    if not inside.any():
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY, "The region of interest lies outside the scan.", hint="Move it onto the scan."
        )
    return torch.from_numpy(inside)


def box_for(mask: Tensor, body: Box, *, tile: TileShape) -> Box:
    """The networks' input: the region with context, intersected with the body's box, enlarged to at least a tile."""
    sides = []
    for axis, (n, body_side) in enumerate(zip(mask.shape, body, strict=True)):
        planes = mask.any(dim=[a for a in range(3) if a != axis]).nonzero().flatten()
        context, min_side = _CONTEXT_VOXELS * tile.stride[axis], tile.voxels[axis]
        low, high = int(planes[0]) - context, int(planes[-1]) + 1 + context
        if max(low, body_side.start) < min(high, body_side.stop):
            low, high = max(low, body_side.start), min(high, body_side.stop)
        low = max(0, low - max(0, min_side - (high - low) + 1) // 2)
        low = min(low, max(0, n - min_side))
        sides.append(slice(low, min(n, max(high, low + min_side))))
    return sides[0], sides[1], sides[2]


def confined(probabilities: Tensor, inside: Tensor) -> Tensor:
    """Probabilities (classes, z, y, x) with certain background where `inside` (z, y, x) is False."""
    kept = probabilities * inside
    kept[0] += ~inside
    return kept


def confined_prediction(prediction: Prediction, inside: Tensor) -> Prediction:
    """A prediction with certain background outside the region; `inside` (z, y, x) is the mask in its box."""
    return replace(
        prediction,
        pre=confined(prediction.pre, inside),
        start=confined(prediction.start, inside),
        ensemble=confined(prediction.ensemble, inside),
        islands=prediction.islands * inside,
        mutual_information=prediction.mutual_information * inside,
        sample_labels=tuple(labels * inside for labels in prediction.sample_labels),
    )
