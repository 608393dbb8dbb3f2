"""Overlapping tiles of one size, blended with Gaussian weights into one map for the whole volume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from torch import Tensor

# The side that the networks were trained with: group norm makes another side another network.
TILE_SIDE = 64
TILE_OVERLAP = 0.25


@dataclass(frozen=True)
class Tiling:
    """Tiles of `side` voxels over `shape` (z, y, x), at least `side` each; neighbours share `overlap` of it."""

    shape: tuple[int, int, int]
    side: int
    overlap: float

    @cached_property
    def tiles(self) -> list[tuple[slice, slice, slice]]:
        """Places of all tiles."""
        interval = max(1, int(self.side * (1 - self.overlap)))
        return [
            (place[0], place[1], place[2])
            for place in dense_patch_slices(self.shape, (self.side,) * 3, (interval,) * 3, return_slice=True)
        ]

    @cached_property
    def weight(self) -> Tensor:
        """Gaussian importance (side, side, side), as in nnU-Net: sigma an eighth of the side, never zero."""
        return compute_importance_map((self.side,) * 3, mode="gaussian", sigma_scale=0.125, dtype=torch.float32)

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
