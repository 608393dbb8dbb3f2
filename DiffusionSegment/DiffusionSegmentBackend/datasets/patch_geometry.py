"""Spatial augmentation of patches: rotation, scaling, translation and elastic deformation as one sampling grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..networks.space_to_depth import Stride

_ROTATION_RADIANS = (0.35, 0.25, 0.25)
_SCALE = (0.75, 1.35)
_ANISOTROPY = 0.10
_MAX_SHIFT = 0.15
_DEFORMATION_PROBABILITY = 0.5
_DEFORMATION_CELLS = 5
_DEFORMATION_MM = 4.0


@dataclass(frozen=True)
class PatchShape:
    """Voxels (Z, Y, X) of a patch on the model's grid, and the voxels of it per voxel of the trunk."""

    voxels: tuple[int, int, int]
    stride: Stride

    @property
    def trunk_voxels(self) -> tuple[int, int, int]:
        """Sides on the grid of the trunk."""
        z, y, x = (n // step for n, step in zip(self.voxels, self.stride, strict=True))
        return z, y, x


@dataclass(frozen=True)
class SpatialTransform:
    """An affine map and an optional deformation from a patch to a volume.

    Attributes:
        affine: (3, 4), between coordinates -1..1 along x, y, z from edge to edge.
        deformation: (1, 3, n, n, n), displacements on a control grid, in coordinates of the volume.
    """

    affine: Tensor
    deformation: Tensor | None

    def grid(self, voxels: tuple[int, int, int], device: torch.device | str = "cpu") -> Tensor:
        """Sampling grid (1, Z, Y, X, 3) of `torch.nn.functional.grid_sample` with `align_corners` False."""
        grid = F.affine_grid(self.affine[None].to(device), [1, 1, *voxels], align_corners=False)
        if self.deformation is not None:
            displacement = F.interpolate(
                self.deformation.to(device), size=voxels, mode="trilinear", align_corners=False
            )
            grid = grid + displacement.movedim(1, -1)
        return grid


def random_transform(
    centre: Tensor,
    *,
    patch: PatchShape,
    volume: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    generator: torch.Generator,
    augment: bool = True,
) -> SpatialTransform:
    """A random transform for a patch around voxel `centre` (z, y, x) of a volume, without flipping.

    The centre is moved so that a patch without rotation and scaling stays inside the volume.
    """
    spacing = torch.tensor(spacing_mm)
    sides = torch.tensor(patch.voxels) * spacing
    extent = torch.tensor(volume) * spacing
    middle = (centre.float() + 0.5) * spacing
    matrix, deformation = torch.eye(3), None
    if augment:
        middle = middle + (2 * torch.rand(3, generator=generator) - 1) * _MAX_SHIFT * sides
        matrix = _rotation(generator) * _scale(generator)
        if float(torch.rand((), generator=generator)) < _DEFORMATION_PROBABILITY:
            displacements = torch.randn((1, 3, *[_DEFORMATION_CELLS] * 3), generator=generator).clamp(-2, 2)
            deformation = displacements * _DEFORMATION_MM * 2 / extent.flip(0)[None, :, None, None, None]
    half = torch.minimum(sides, extent) / 2
    middle = torch.maximum(torch.minimum(middle, extent - half), half)
    # grid_sample uses the order x, y, z and coordinates relative to half the sides.
    linear = matrix * sides.flip(0)[None] / extent.flip(0)[:, None]
    shift = (2 * middle / extent - 1).flip(0)
    return SpatialTransform(torch.cat([linear, shift[:, None]], dim=1), deformation)


def _rotation(generator: torch.Generator) -> Tensor:
    """Random rotation (3, 3) for x, y, z; the range is largest about x."""
    angles = (2 * torch.rand(3, generator=generator) - 1) * torch.tensor(_ROTATION_RADIANS)
    matrix = torch.eye(3)
    for axis, angle in enumerate(angles.tolist()):
        a, b = [n for n in range(3) if n != axis]
        rotation = torch.eye(3)
        rotation[a, a] = rotation[b, b] = math.cos(angle)
        rotation[a, b], rotation[b, a] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ rotation
    return matrix


def _scale(generator: torch.Generator) -> Tensor:
    """Factors (3,) of the columns: extent of the patch in the volume along x, y, z relative to its own size."""
    low, high = (math.log(value) for value in _SCALE)
    whole = math.exp(low + (high - low) * float(torch.rand((), generator=generator)))
    return whole * (1 + (2 * torch.rand(3, generator=generator) - 1) * _ANISOTROPY)


def read(volume: Tensor, grid: Tensor, *, mode: str, outside: str = "zeros") -> Tensor:
    """Sample a volume (C, Z, Y, X) of any dtype at a grid (1, z, y, x, 3): float32 (1, C, z, y, x).

    Only the bounding box of the grid is converted to float.
    """
    sizes = torch.tensor(volume.shape[:0:-1], device=grid.device, dtype=grid.dtype)
    flat = grid.reshape(-1, 3)
    low, high = (((end + 1) * sizes - 1) / 2 for end in (flat.amin(dim=0), flat.amax(dim=0)))
    starts = (low.floor() - 1).clamp(min=torch.zeros_like(sizes), max=sizes - 1)
    stops = (high.ceil() + 2).clamp(min=starts + 1, max=sizes)
    x, y, z = (slice(int(a), int(b)) for a, b in zip(starts, stops, strict=True))
    inside = ((grid + 1) * sizes - 2 * starts) / (stops - starts) - 1
    box = volume[:, z, y, x][None].float()
    return F.grid_sample(box, inside, mode=mode, padding_mode=outside, align_corners=False)


def displaced(grid: Tensor, displacement: Tensor) -> Tensor:
    """Compose a sampling grid (1, Z, Y, X, 3) with a displacement (1, 3, Z, Y, X) in voxels of the patch along z, y, x.

    Voxel p then shows what voxel p + displacement(p) showed, clamped at the border.
    """
    sides = grid.shape[1:4]
    identity = F.affine_grid(torch.eye(3, 4, device=grid.device)[None], [1, 1, *sides], align_corners=False)
    share = torch.tensor([2 / n for n in reversed(sides)], device=grid.device)
    positions = identity + displacement.flip(1).movedim(1, -1) * share
    field = grid.movedim(-1, 1)
    return F.grid_sample(field, positions, padding_mode="border", align_corners=False).movedim(1, -1)
