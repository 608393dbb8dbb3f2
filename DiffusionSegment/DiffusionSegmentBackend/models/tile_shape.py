"""Shape of a tile: its voxels on the model's grid, and how many of them a voxel of the trunk's grid covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Sides = tuple[int, int, int]

# The side on the trunk's grid unless model.json says otherwise.
TILE_SIDE = 64


@dataclass(frozen=True)
class TileShape:
    """Sides (z, y, x) of a tile in voxels of the model's grid; a voxel of the trunk's grid covers `stride` of them.

    Inference uses the shape of the training patches, because the statistics of group norm depend on it.
    """

    voxels: Sides
    stride: Sides = (1, 1, 1)

    @classmethod
    def cube(cls, side: int, stride: Sides = (1, 1, 1)) -> TileShape:
        """A cube of `side` voxels on the trunk's grid."""
        z, y, x = (side * step for step in stride)
        return cls((z, y, x), stride)

    @property
    def trunk_voxels(self) -> Sides:
        """Sides on the trunk's grid."""
        return self.on_trunk(self.voxels)

    def on_trunk(self, shape: Sequence[int]) -> Sides:
        """Sides of whole trunk voxels as sides on the trunk's grid."""
        z, y, x = (n // step for n, step in zip(shape, self.stride, strict=True))
        return z, y, x

    def covering(self, shape: Sequence[int]) -> Sides:
        """`shape` (z, y, x) enlarged to at least a tile, and to whole voxels of the trunk's grid."""
        z, y, x = (
            -(-max(side, n) // step) * step for side, n, step in zip(self.voxels, shape, self.stride, strict=True)
        )
        return z, y, x
