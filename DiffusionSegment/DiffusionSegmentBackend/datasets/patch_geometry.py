"""Where a patch is read: turned, scaled, shifted and bent about a voxel of a scan, all of it as one sampling grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..networks.space_to_depth import Stride

_TURN_RADIANS = (0.35, 0.25, 0.25)
_SCALE = (0.75, 1.35)
_ANISOTROPY = 0.10
_SHIFT_SHARE = 0.15
_BEND_PROBABILITY = 0.5
_BEND_CELLS = 5
_BEND_MM = 4.0


@dataclass(frozen=True)
class PatchShape:
    """Voxels (Z, Y, X) of a patch on the model's grid, and what a voxel of the trunk covers of them."""

    voxels: tuple[int, int, int]
    stride: Stride

    @property
    def trunk_voxels(self) -> tuple[int, int, int]:
        """Sides on the trunk's grid."""
        z, y, x = (n // step for n, step in zip(self.voxels, self.stride, strict=True))
        return z, y, x


@dataclass(frozen=True)
class Placement:
    """An affine map (3, 4) from a patch to a volume, both -1..1 along x, y, z edge to edge, and a bend.

    The bend (1, 3, cells, cells, cells) is added on the volume's side; None for none.
    """

    affine: Tensor
    bend: Tensor | None

    def grid(self, voxels: tuple[int, int, int], device: torch.device | str = "cpu") -> Tensor:
        """Sampling grid (1, Z, Y, X, 3) of `torch.nn.functional.grid_sample` with `align_corners` False."""
        grid = F.affine_grid(self.affine[None].to(device), [1, 1, *voxels], align_corners=False)
        if self.bend is not None:
            bend = F.interpolate(self.bend.to(device), size=voxels, mode="trilinear", align_corners=False)
            grid = grid + bend.movedim(1, -1)
        return grid


def random_placement(
    centre: Tensor,
    *,
    patch: PatchShape,
    volume: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    generator: torch.Generator,
    augment: bool = True,
) -> Placement:
    """A patch around voxel `centre` (z, y, x) of a volume of so many voxels, moved but never mirrored.

    The middle is kept so far inside that a patch that is neither turned nor scaled stays within the volume.
    """
    spacing = torch.tensor(spacing_mm)
    sides = torch.tensor(patch.voxels) * spacing
    extent = torch.tensor(volume) * spacing
    middle = (centre.float() + 0.5) * spacing
    matrix, bend = torch.eye(3), None
    if augment:
        middle = middle + (2 * torch.rand(3, generator=generator) - 1) * _SHIFT_SHARE * sides
        matrix = _turn(generator) * _scale(generator)
        if float(torch.rand((), generator=generator)) < _BEND_PROBABILITY:
            drawn = torch.randn((1, 3, *[_BEND_CELLS] * 3), generator=generator).clamp(-2, 2)
            bend = drawn * _BEND_MM * 2 / extent.flip(0)[None, :, None, None, None]
    half = torch.minimum(sides, extent) / 2
    middle = torch.maximum(torch.minimum(middle, extent - half), half)
    # grid_sample wants x, y, z and shares of the half sides.
    linear = matrix * sides.flip(0)[None] / extent.flip(0)[:, None]
    shift = (2 * middle / extent - 1).flip(0)
    return Placement(torch.cat([linear, shift[:, None]], dim=1), bend)


def _turn(generator: torch.Generator) -> Tensor:
    """Rotation (3, 3) in mm along x, y, z; most about x, as patients tilt."""
    angles = (2 * torch.rand(3, generator=generator) - 1) * torch.tensor(_TURN_RADIANS)
    matrix = torch.eye(3)
    for axis, angle in enumerate(angles.tolist()):
        a, b = [n for n in range(3) if n != axis]
        turn = torch.eye(3)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    return matrix


def _scale(generator: torch.Generator) -> Tensor:
    """Factors (3,) of the columns: what a patch shows of the volume along x, y, z, relative to its own size."""
    low, high = (math.log(value) for value in _SCALE)
    whole = math.exp(low + (high - low) * float(torch.rand((), generator=generator)))
    return whole * (1 + (2 * torch.rand(3, generator=generator) - 1) * _ANISOTROPY)


def read(volume: Tensor, grid: Tensor, *, mode: str, outside: str = "zeros") -> Tensor:
    """Sample (C, Z, Y, X) of any type at a grid (1, z, y, x, 3): float32 (1, C, z, y, x).

    Only the box around the grid is converted to float.
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
    """A sampling grid (1, Z, Y, X, 3) after a displacement (1, 3, Z, Y, X) in voxels of the patch along z, y, x.

    Patch voxel p then shows what voxel p + displacement(p) showed, at the border what that shows.
    """
    sides = grid.shape[1:4]
    identity = F.affine_grid(torch.eye(3, 4, device=grid.device)[None], [1, 1, *sides], align_corners=False)
    share = torch.tensor([2 / n for n in reversed(sides)], device=grid.device)
    places = identity + displacement.flip(1).movedim(1, -1) * share
    field = grid.movedim(-1, 1)
    return F.grid_sample(field, places, padding_mode="border", align_corners=False).movedim(1, -1)
