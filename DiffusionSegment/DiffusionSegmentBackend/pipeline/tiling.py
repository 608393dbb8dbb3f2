"""Overlapping tiles of one shape, blended with Gaussian weights into one map for the whole volume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from torch import Tensor

from ..models.tile_shape import Sides, TileShape

TILE_OVERLAP = 0.25
# A share of the side. With nnU-Net's eighth and a quarter of overlap the weight passes from one tile to the next
# within four voxels, which shows as a straight edge wherever group norm makes neighbours disagree.
BLEND_SIGMA = 0.25


@dataclass(frozen=True)
class Tiling:
    """Tiles of `sides` voxels over `shape` (z, y, x), at least as large; neighbours share `overlap` of a side.

    Tiles begin at multiples of `step` voxels where the shape's sides are such; neighbours may share more for that.
    """

    shape: Sides
    sides: Sides
    overlap: float = TILE_OVERLAP
    step: Sides = (1, 1, 1)
    sigma: float = BLEND_SIGMA

    @cached_property
    def tiles(self) -> list[tuple[slice, slice, slice]]:
        """Places of all tiles."""
        interval = [interval_of(*axis, overlap=self.overlap) for axis in zip(self.sides, self.step, strict=True)]
        return [
            (place[0], place[1], place[2])
            for place in dense_patch_slices(self.shape, self.sides, interval, return_slice=True)
        ]

    @cached_property
    def weight(self) -> Tensor:
        """Gaussian importance (z, y, x) with a standard deviation of `sigma` of the side, never zero."""
        return compute_importance_map(self.sides, mode="gaussian", sigma_scale=self.sigma, dtype=torch.float32)

    @cached_property
    def _shares(self) -> list[Tensor]:
        """How much of each voxel every tile contributes; the shares of a voxel sum to 1."""
        total = torch.zeros(self.shape)
        for place in self.tiles:
            total[place] += self.weight
        return [self.weight / total[place] for place in self.tiles]

    def blend(self, predict: Callable[[int, tuple[slice, slice, slice]], Tensor], *, channels: int) -> Tensor:
        """Weighted mean (channels, z, y, x), float32 on the CPU, of the tiles `predict(index, place)`."""
        result = torch.zeros((channels, *self.shape))
        for index, place in enumerate(self.tiles):
            result[(slice(None), *place)].addcmul_(predict(index, place).float().cpu(), self._shares[index])
        return result


def tiling_of(tensor: Tensor, tile: TileShape) -> Tiling:
    """Tiles over a tensor (..., z, y, x) on the model's grid."""
    z, y, x = tensor.shape[-3:]
    return Tiling((z, y, x), tile.voxels, step=tile.stride)


def on_trunk(tiling: Tiling, tile: TileShape) -> Tiling:
    """The same tiles in the same order on the trunk's grid."""
    return Tiling(
        tile.on_trunk(tiling.shape), tile.trunk_voxels, tiling.overlap, tile.on_trunk(tiling.step), tiling.sigma
    )


def interval_of(side: int, step: int = 1, *, overlap: float = TILE_OVERLAP) -> int:
    """Voxels from the beginning of one tile to that of the next, a multiple of `step`."""
    return max(step, int(side * (1 - overlap)) // step * step)
