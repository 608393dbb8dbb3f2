"""Bowel loops with contrast, gas or stool in the background.

Networks that were trained on few of them confuse positive oral contrast in bowel with spleen or stomach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .displacement import Cells
from .gut_content import filled, random_content
from .patch_batch import PatchBatch
from .random_numbers import integer, one_of, uniform
from .regions import Ball, box_around, coverage, signed_distance
from .separable import blurred

_LOOPS = 3
_RADIUS_MM = (7.0, 20.0)
_STEPS = (8, 22)
_CANDIDATES = 8
_BEND = 0.5
_WALL_MM = (1.5, 3.5)
_WALL_HU = (30.0, 90.0)
_BONE_HU = 180.0
_AIR_HU = -115.0
_FAT_HU = -40.0
_ORGAN_MARGIN_MM = 3.0
_SPINE_MM = 12.0
_LOWER_ORGANS = ("left_kidney", "right_kidney", "pancreas", "gallbladder")
_UPPER_ORGANS = ("liver", "spleen", "stomach")


@dataclass(frozen=True)
class _FreeSpace:
    """Free space for loops, on the CPU: `weights` (z, y, x) of starting cells, and `free` (z, y, x), 0 or 1."""

    weights: Tensor
    free: Tensor
    cells: Cells


def add_bowel(batch: PatchBatch, generator: torch.Generator) -> PatchBatch:
    """Add one to three bent tubes of 7 to 20 mm radius to the background of each patch; labels are unchanged.

    Loops avoid annotated organs, bone, skin, the chest and the region behind the great vessels. A patch without free
    space is unchanged.
    """
    parts = [_with_loops(batch.of(torch.tensor([n])), generator) for n in range(len(batch.image))]
    return replace(batch, image=torch.cat(parts))


def _with_loops(batch: PatchBatch, generator: torch.Generator) -> Tensor:
    count = integer(1, _LOOPS, generator)
    space = _free_space(batch)
    if not space.weights.any():
        return batch.image
    for _ in range(count):
        balls = _loop(space, generator)
        box = box_around(balls, batch.shape, batch.spacing_mm)
        inside = [ball.relative_to(box) for ball in balls]
        batch = batch.with_part(box, _with_loop(inside, batch.cut(box), generator))
    return batch.image


def _with_loop(balls: Sequence[Ball], part: PatchBatch, generator: torch.Generator) -> Tensor:
    """The image of a cropped patch with one loop."""
    background, depth = _background(part), signed_distance(balls, part)
    wall_mm = float(uniform((), *_WALL_MM, generator=generator, device=torch.device("cpu")))
    wall_hu = uniform((), *_WALL_HU, generator=generator, device=part.image.device)
    walled = torch.lerp(part.image, wall_hu.expand_as(part.image), coverage(depth) * background)
    lumen = coverage(depth - wall_mm) * background
    return filled(replace(part, image=walled), lumen, random_content(generator), generator)


def _background(batch: PatchBatch) -> Tensor:
    """Share of each voxel that a loop may fill, 0..1: outside of annotated organs and bone."""
    occupied = ((batch.labels > 0) | (batch.image > _BONE_HU)).float()
    return (1 - 4 * blurred(occupied, _ORGAN_MARGIN_MM, batch.spacing_mm)).clamp(0, 1)


def _free_space(batch: PatchBatch) -> _FreeSpace:
    cells = Cells(batch.shape, batch.spacing_mm)
    organ = cells.mean(batch.labels > 0)
    bone = cells.mean((batch.image > _BONE_HU) & (batch.labels == 0))
    air = cells.mean(batch.image < _AIR_HU)
    soft = cells.mean(batch.image > _FAT_HU)
    near_bone, near_air = blurred(bone, 8.0, cells.cell_mm), blurred(air, 20.0, cells.cell_mm)
    # Excludes subcutaneous fat, which has no soft tissue nearby.
    near_soft = blurred(soft, 15.0, cells.cell_mm)
    free = (organ < 0.05) & (near_bone < 0.05) & (near_air < 0.04) & (near_soft > 0.25)
    free = (free & _before_spine(batch, cells) & _below_chest(batch, cells))[0, 0].float()
    weights = free * (0.2 + soft[0, 0])
    return _FreeSpace(weights.cpu(), free.cpu(), cells)


def _before_spine(batch: PatchBatch, cells: Cells) -> Tensor:
    """Rows of cells (y, 1) bool that are not behind the great vessels; all if none is annotated in the patch."""
    vessels = _any_of(batch, ("aorta", "inferior_vena_cava"))
    rows = (torch.arange(cells.counts[1], device=batch.image.device) + 0.5) * cells.strides[1]
    if not vessels.any():
        return torch.ones_like(rows, dtype=torch.bool)[:, None]
    return (rows < vessels.nonzero()[:, 3].float().mean() + _SPINE_MM / batch.spacing_mm[1])[:, None]


def _below_chest(batch: PatchBatch, cells: Cells) -> Tensor:
    """Slices of cells (z, 1, 1) bool below the heart, from the annotated organs; all without any."""
    slices = (torch.arange(cells.counts[0], device=batch.image.device) + 0.5) * cells.strides[0]
    lower, upper = _any_of(batch, _LOWER_ORGANS), _any_of(batch, _UPPER_ORGANS)
    if lower.any():
        below = slices <= lower.nonzero()[:, 2].max()
    elif upper.any():
        below = slices <= upper.nonzero()[:, 2].float().mean()
    else:
        below = torch.full_like(slices, not bool(_any_of(batch, ("esophagus",)).any()), dtype=torch.bool)
    return below[:, None, None]


def _any_of(batch: PatchBatch, names: Sequence[str]) -> Tensor:
    """Mask (B, 1, z, y, x) bool of those of the organs that are in the label set."""
    values = [batch.organs[name] for name in names if name in batch.organs]
    return torch.isin(batch.labels, torch.tensor(values, device=batch.labels.device, dtype=batch.labels.dtype))


def _loop(space: _FreeSpace, generator: torch.Generator) -> Sequence[Ball]:
    """Balls along a random walk through free space."""
    cpu = torch.device("cpu")
    cell = torch.tensor(space.cells.cell_mm)
    start = one_of(space.weights.flatten(), generator)
    position = torch.stack(torch.unravel_index(torch.tensor(start), space.weights.shape)).float()
    radius = float(uniform((), *_RADIUS_MM, generator=generator, device=cpu))
    steps = integer(*_STEPS, generator)
    turns = 2 * uniform((steps, _CANDIDATES, 3), -1, 1, generator=generator, device=cpu)
    haustra = uniform((steps,), 0.8, 1.15, generator=generator, device=cpu)
    direction = torch.zeros(3)
    balls = []
    for step in range(steps):
        z, y, x = (((position + 0.5) * torch.tensor(space.cells.strides)) - 0.5).tolist()
        balls.append(Ball((z, y, x), radius * float(haustra[step])))
        directions = direction + _BEND * turns[step]
        directions = directions / directions.norm(dim=1, keepdim=True).clamp(min=1e-3)
        free = _free(space.free, position + 2 * radius * directions / cell)
        direction = directions[int(free.argmax())]
        position = position + 0.5 * radius * direction / cell
        if not _free(space.free, position[None])[0]:
            break
    return balls


def _free(free: Tensor, positions: Tensor) -> Tensor:
    """Whether positions (n, 3) in cells are free, 0 or 1; those outside the patch are not."""
    indices = positions.round().long()
    sizes = torch.tensor(free.shape)
    inside = ((indices >= 0) & (indices < sizes)).all(dim=1)
    z, y, x = indices.clamp(min=0).minimum(sizes - 1).unbind(dim=1)
    return free[z, y, x] * inside
