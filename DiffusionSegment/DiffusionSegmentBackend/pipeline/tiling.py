"""Overlapping tiles of one shape, blended with Gaussian weights into one map for the whole volume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from torch import Tensor

from ..imaging.volume import Box
from ..models.tile_shape import Sides, TileShape

TILE_OVERLAP = 0.25
# Relative to the side. With nnU-Net's 1/8 at this overlap the weight changes from one tile to the next within four
# voxels, which is visible as a straight edge where group norm makes neighbouring tiles disagree.
BLEND_SIGMA = 0.25


@dataclass(frozen=True)
class Tiling:
    """Tiles of `sides` voxels that cover a volume of `shape` (z, y, x), which is at least as large.

    Neighbours overlap by the fraction `overlap` of a side, or more: tiles begin at multiples of `step` voxels if the
    sides of the volume are such multiples. `sigma` is that of the Gaussian weight, relative to the side.
    """

    shape: Sides
    sides: Sides
    overlap: float = TILE_OVERLAP
    step: Sides = (1, 1, 1)
    sigma: float = BLEND_SIGMA

    @cached_property
    def tiles(self) -> list[Box]:
        """Boxes of all tiles."""
        interval = [interval_of(*axis, overlap=self.overlap) for axis in zip(self.sides, self.step, strict=True)]
        boxes = dense_patch_slices(self.shape, self.sides, interval, return_slice=True)
        return [(box[0], box[1], box[2]) for box in boxes]

    @cached_property
    def weight(self) -> Tensor:
        """Gaussian importance (z, y, x) with a standard deviation of `sigma` of the side, never zero."""
        return compute_importance_map(self.sides, mode="gaussian", sigma_scale=self.sigma, dtype=torch.float32)

    @cached_property
    def _shares(self) -> list[Tensor]:
        """Normalised weight (z, y, x) of every tile; the weights of a voxel sum to 1."""
        total = torch.zeros(self.shape)
        for box in self.tiles:
            total[box] += self.weight
        return [self.weight / total[box] for box in self.tiles]

    def blend(self, predict: Callable[[int, Box], Tensor], *, channels: int) -> Tensor:
        """Weighted mean (channels, z, y, x), float32 on the CPU, of `predict(index, box)` over the tiles."""
        result = torch.zeros((channels, *self.shape))
        for index, box in enumerate(self.tiles):
            result[(slice(None), *box)].addcmul_(predict(index, box).float().cpu(), self._shares[index])
        return result


def tiling_of(tensor: Tensor, tile: TileShape) -> Tiling:
    """Tiles of a tensor (..., z, y, x) on the model's grid."""
    z, y, x = tensor.shape[-3:]
    return Tiling((z, y, x), tile.voxels, step=tile.stride)


def on_trunk(tiling: Tiling, tile: TileShape) -> Tiling:
    """The same tiles, in the same order, on the trunk's grid."""
    return Tiling(
        tile.on_trunk(tiling.shape), tile.trunk_voxels, tiling.overlap, tile.on_trunk(tiling.step), tiling.sigma
    )


def interval_of(side: int, step: int = 1, *, overlap: float = TILE_OVERLAP) -> int:
    """Distance in voxels between the beginnings of neighbouring tiles, a multiple of `step`."""
    return max(step, int(side * (1 - overlap)) // step * step)
