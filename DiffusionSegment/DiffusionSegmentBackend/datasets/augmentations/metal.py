"""Metal artefacts: a dense object with bright and dark streaks in its slices."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from .patch_batch import AIR_HU, PatchBatch
from .random_numbers import integer, log_uniform, normal, uniform
from .regions import Ball, box_around, coverage, signed_distance

_METAL_HU = 3000.0
_RADIUS_MM = (2.5, 9.0)
_STREAK_HU = (40.0, 220.0)
_RAYS = 110
_DECAY_MM = 45.0
_STREAK_HEIGHT_MM = 4.0
_TISSUE_HU = -110.0


def add_metal(batch: PatchBatch, generator: torch.Generator) -> PatchBatch:
    """Add one object of 3000 HU in tissue to each patch, with streaks in its slices; labels are unchanged.

    Streaks are a zero-mean random function of the angle around the object and decay over 45 mm. Patches without tissue
    are unchanged.
    """
    parts = [_with_metal(batch.of(torch.tensor([n])), generator) for n in range(len(batch.image))]
    return replace(batch, image=torch.cat(parts))


def _with_metal(batch: PatchBatch, generator: torch.Generator) -> Tensor:
    tissue = (batch.image[0, 0, :, ::4, ::4] > _TISSUE_HU).nonzero()
    if not len(tissue):
        return batch.image
    cpu = torch.device("cpu")
    z, y, x = tissue[integer(0, len(tissue) - 1, generator)].tolist()
    centre = (float(z), 4.0 * y, 4.0 * x)
    radius = float(log_uniform((), *_RADIUS_MM, generator=generator, device=cpu))
    a, b, c = uniform((3,), 0.6, 1.6, generator=generator, device=cpu).tolist()
    ball = Ball(centre, radius, (a, b, c))
    height = (batch.axis_mm(0) - (z - (batch.shape[0] - 1) / 2) * batch.spacing_mm[0]).abs() - radius * a
    slices = (1 - height.clamp(min=0) / _STREAK_HEIGHT_MM).clamp(min=0)
    image = batch.image + slices[:, None, None] * _streaks(centre, radius, batch, generator)
    image = image.clamp(min=AIR_HU)
    box = box_around([ball], batch.shape, batch.spacing_mm)
    part = replace(batch, image=image).cut(box)
    metal = coverage(signed_distance([ball.relative_to(box)], part))
    return replace(batch, image=image).with_part(box, torch.lerp(part.image, metal.new_tensor(_METAL_HU), metal)).image


def _streaks(
    centre: tuple[float, float, float], radius: float, batch: PatchBatch, generator: torch.Generator
) -> Tensor:
    """Streaks (y, x) in HU in a slice through the object."""
    device = batch.image.device
    steps = [torch.arange(n, device=device, dtype=torch.float32) for n in batch.shape[1:]]
    y = (steps[0][:, None] - centre[1]) * batch.spacing_mm[1]
    x = (steps[1][None] - centre[2]) * batch.spacing_mm[2]
    rays = normal((_RAYS,), generator=generator, device=device)
    rays = rays * rays.abs()
    rays = rays - rays.mean()
    turn = (torch.atan2(y, x) / (2 * math.pi) + 0.5) * _RAYS
    low = turn.floor()
    near, far = rays[low.long() % _RAYS], rays[(low.long() + 1) % _RAYS]
    distance = (y**2 + x**2).sqrt()
    decay = torch.exp(-(distance - radius).clamp(min=0) / _DECAY_MM)
    return uniform((), *_STREAK_HU, generator=generator, device=device) * decay * torch.lerp(near, far, turn - low)
