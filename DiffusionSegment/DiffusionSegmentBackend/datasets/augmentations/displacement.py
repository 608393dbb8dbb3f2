"""Displacement fields, computed on a coarse grid of cells and interpolated to the voxels of a patch.

A displacement (B, 3, z, y, x) is in voxels along z, y and x: warped(p) = patch(p + displacement(p)). Added to a
sampling grid, it deforms image, coordinates and labels together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .separable import interpolated

_CELL_MM = 6.0


@dataclass(frozen=True)
class Cells:
    """A coarse grid over a patch of `shape` voxels of `spacing_mm`, both (z, y, x); each cell is `strides` voxels."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]

    @property
    def strides(self) -> tuple[int, int, int]:
        """Voxels of a cell, for cells of about 6 mm."""
        z, y, x = (max(1, round(_CELL_MM / step)) for step in self.spacing_mm)
        return z, y, x

    @property
    def cell_mm(self) -> tuple[float, float, float]:
        """Sides of a cell in mm."""
        z, y, x = (stride * step for stride, step in zip(self.strides, self.spacing_mm, strict=True))
        return z, y, x

    @property
    def counts(self) -> tuple[int, int, int]:
        """Cells along z, y, x; the last may reach beyond the patch."""
        z, y, x = (-(-n // stride) for n, stride in zip(self.shape, self.strides, strict=True))
        return z, y, x

    def mean(self, volume: Tensor) -> Tensor:
        """Mean of a volume (B, C, z, y, x) over each cell, float32; the far ends are padded by replication."""
        missing = [-n % stride for n, stride in zip(self.shape, self.strides, strict=True)]
        padded = F.pad(volume.float(), (0, missing[2], 0, missing[1], 0, missing[0]), mode="replicate")
        return F.avg_pool3d(padded, self.strides)

    def in_voxels(self, displacement_mm: Tensor) -> Tensor:
        """Convert a displacement of cells in mm (B, 3, ...) to one of voxels, in voxels (B, 3, z, y, x)."""
        steps = torch.tensor(self.spacing_mm, device=displacement_mm.device).view(1, 3, 1, 1, 1)
        return interpolated(displacement_mm / steps, self.shape, self.strides)


def warped(volume: Tensor, displacement: Tensor, *, mode: str = "bilinear") -> Tensor:
    """Warp a volume (B, C, z, y, x) by `displacement` (B, 3, z, y, x) in voxels, with border padding.

    `mode` is "bilinear", or "nearest" for labels.
    """
    sizes = volume.shape[2:]
    steps = [torch.arange(n, device=volume.device, dtype=torch.float32) for n in sizes]
    lattice = torch.stack(torch.meshgrid(*steps, indexing="ij"))
    scale = [2 / max(1, n - 1) for n in sizes]
    positions = [(lattice[axis] + displacement[:, axis]) * scale[axis] - 1 for axis in (2, 1, 0)]
    sampled = F.grid_sample(
        volume.float(), torch.stack(positions, dim=-1), mode=mode, padding_mode="border", align_corners=True
    )
    return sampled.to(volume.dtype)


def composed(first: Tensor, second: Tensor, cell_mm: Sequence[float]) -> Tensor:
    """Composition of two displacements (B, 3, cells) in mm: warping by `first`, then by `second`."""
    cell = torch.tensor(cell_mm, device=first.device).view(1, 3, 1, 1, 1)
    return second + warped(first, second / cell)
