"""A region of interest: an oriented box in the patient, outside which nothing is segmented."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.volume import Grid
from ..models.tile_shape import TileShape
from .session import Prediction

Box = tuple[slice, slice, slice]

# What the networks see around the region, voxels of the trunk: an organ is known by its neighbours.
_CONTEXT_VOXELS = 16


def region_mask(region: tuple[float, ...], grid: Grid) -> Tensor:
    """Grid voxels (z, y, x), bool, whose centre lies in the box; `region` is its matrix from -1..1 to LPS mm, by rows.

    Raises:
        DiffusionSegmentError: OPTION for a matrix that is none or spans no space, GEOMETRY for a box beside the scan.
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
    """Where the networks look: the region and some context, inside the body's box where they meet, a tile at least."""
    sides = []
    for axis, (n, known) in enumerate(zip(mask.shape, body, strict=True)):
        found = mask.any(dim=[a for a in range(3) if a != axis]).nonzero().flatten()
        context, least = _CONTEXT_VOXELS * tile.stride[axis], tile.voxels[axis]
        low, high = int(found[0]) - context, int(found[-1]) + 1 + context
        if max(low, known.start) < min(high, known.stop):
            low, high = max(low, known.start), min(high, known.stop)
        low = max(0, low - max(0, least - (high - low) + 1) // 2)
        low = min(low, max(0, n - least))
        sides.append(slice(low, min(n, max(high, low + least))))
    return sides[0], sides[1], sides[2]


def confined(probabilities: Tensor, inside: Tensor) -> Tensor:
    """Probabilities (classes, z, y, x) that are certain of the background where `inside` (z, y, x) is False."""
    kept = probabilities * inside
    kept[0] += ~inside
    return kept


def confined_prediction(prediction: Prediction, inside: Tensor) -> Prediction:
    """A prediction that says nothing outside the region; `inside` (z, y, x) is the mask in its own box."""
    return replace(
        prediction,
        pre=confined(prediction.pre, inside),
        start=confined(prediction.start, inside),
        ensemble=confined(prediction.ensemble, inside),
        islands=prediction.islands * inside,
        mutual_information=prediction.mutual_information * inside,
        sample_labels=tuple(labels * inside for labels in prediction.sample_labels),
    )
