"""Bowel loops outside the drawn organs, with contrast, gas or stool in them: bright background that is no organ.

Positive oral contrast in bowel is easily taken for spleen or stomach by a network that saw little of it.
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
class _Room:
    """Where loops may run, on cells: `weights` (z, y, x) to begin, `free` (z, y, x) 0..1 to go on; on the CPU."""

    weights: Tensor
    free: Tensor
    cells: Cells


def add_bowel(batch: PatchBatch, generator: torch.Generator) -> PatchBatch:
    """One to three loops a patch in the background, each a bent tube of 7 to 20 mm radius; labels stay.

    Loops keep clear of drawn organs, bone, skin, the chest and what lies behind the great vessels. A patch without
    room for a loop stays as it is.
    """
    parts = [_with_loops(batch.of(torch.tensor([n])), generator) for n in range(len(batch.image))]
    return replace(batch, image=torch.cat(parts))


def _with_loops(batch: PatchBatch, generator: torch.Generator) -> Tensor:
    count = integer(1, _LOOPS, generator)
    room = _room(batch)
    if not room.weights.any():
        return batch.image
    for _ in range(count):
        balls = _loop(room, generator)
        box = box_around(balls, batch.shape, batch.spacing_mm)
        inside = [ball.seen_from(box) for ball in balls]
        batch = batch.with_part(box, _drawn(inside, batch.cut(box), generator))
    return batch.image


def _drawn(balls: Sequence[Ball], part: PatchBatch, generator: torch.Generator) -> Tensor:
    """The image of a part of the patch with one loop in it."""
    background, depth = _background(part), signed_distance(balls, part)
    wall_mm = float(uniform((), *_WALL_MM, generator=generator, device=torch.device("cpu")))
    wall_hu = uniform((), *_WALL_HU, generator=generator, device=part.image.device)
    walled = torch.lerp(part.image, wall_hu.expand_as(part.image), coverage(depth) * background)
    lumen = coverage(depth - wall_mm) * background
    return filled(replace(part, image=walled), lumen, random_content(generator), generator)


def _background(batch: PatchBatch) -> Tensor:
    """Share of each voxel that a loop may take, 0..1: neither drawn organ nor bone."""
    taken = ((batch.labels > 0) | (batch.image > _BONE_HU)).float()
    return (1 - 4 * blurred(taken, _ORGAN_MARGIN_MM, batch.spacing_mm)).clamp(0, 1)


def _room(batch: PatchBatch) -> _Room:
    cells = Cells(batch.shape, batch.spacing_mm)
    organ = cells.mean(batch.labels > 0)
    bone = cells.mean((batch.image > _BONE_HU) & (batch.labels == 0))
    air = cells.mean(batch.image < _AIR_HU)
    soft = cells.mean(batch.image > _FAT_HU)
    near_bone, near_air = blurred(bone, 8.0, cells.cell_mm), blurred(air, 20.0, cells.cell_mm)
    # Under the skin lies nothing but fat; between bowel and organs there is more.
    near_soft = blurred(soft, 15.0, cells.cell_mm)
    free = (organ < 0.05) & (near_bone < 0.05) & (near_air < 0.04) & (near_soft > 0.25)
    free = (free & _before_spine(batch, cells) & _below_chest(batch, cells))[0, 0].float()
    weights = free * (0.2 + soft[0, 0])
    return _Room(weights.cpu(), free.cpu(), cells)


def _before_spine(batch: PatchBatch, cells: Cells) -> Tensor:
    """Rows of cells (y, 1) bool that do not lie further back than the great vessels; all when none is drawn here."""
    vessels = _any_of(batch, ("aorta", "inferior_vena_cava"))
    rows = (torch.arange(cells.counts[1], device=batch.image.device) + 0.5) * cells.strides[1]
    if not vessels.any():
        return torch.ones_like(rows, dtype=torch.bool)[:, None]
    return (rows < vessels.nonzero()[:, 3].float().mean() + _SPINE_MM / batch.spacing_mm[1])[:, None]


def _below_chest(batch: PatchBatch, cells: Cells) -> Tensor:
    """Slices of cells (z, 1, 1) bool that hold no heart, by the organs drawn here; all where nothing is drawn."""
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
    """Mask (B, 1, z, y, x) bool of several organs, of those that the label set has."""
    values = [batch.organs[name] for name in names if name in batch.organs]
    return torch.isin(batch.labels, torch.tensor(values, device=batch.labels.device, dtype=batch.labels.dtype))


def _loop(room: _Room, generator: torch.Generator) -> Sequence[Ball]:
    """Balls along a random walk that bends to stay where it is free."""
    cpu = torch.device("cpu")
    cell = torch.tensor(room.cells.cell_mm)
    start = one_of(room.weights.flatten(), generator)
    place = torch.stack(torch.unravel_index(torch.tensor(start), room.weights.shape)).float()
    radius = float(uniform((), *_RADIUS_MM, generator=generator, device=cpu))
    steps = integer(*_STEPS, generator)
    turns = 2 * uniform((steps, _CANDIDATES, 3), -1, 1, generator=generator, device=cpu)
    haustra = uniform((steps,), 0.8, 1.15, generator=generator, device=cpu)
    direction = torch.zeros(3)
    balls = []
    for step in range(steps):
        z, y, x = (((place + 0.5) * torch.tensor(room.cells.strides)) - 0.5).tolist()
        balls.append(Ball((z, y, x), radius * float(haustra[step])))
        options = direction + _BEND * turns[step]
        options = options / options.norm(dim=1, keepdim=True).clamp(min=1e-3)
        free = _free(room.free, place + 2 * radius * options / cell)
        direction = options[int(free.argmax())]
        place = place + 0.5 * radius * direction / cell
        if not _free(room.free, place[None])[0]:
            break
    return balls


def _free(free: Tensor, places: Tensor) -> Tensor:
    """Whether places (n, 3) in cells are free, 0 or 1 each; outside the patch they are not."""
    indices = places.round().long()
    sizes = torch.tensor(free.shape)
    inside = ((indices >= 0) & (indices < sizes)).all(dim=1)
    z, y, x = indices.clamp(min=0).minimum(sizes - 1).unbind(dim=1)
    return free[z, y, x] * inside
