"""Truncated fields of view: a small reconstruction circle, a side cut off, or a scan that ends in the patch."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .patch_batch import AIR_HU, PatchBatch
from .random_numbers import chance, integer, uniform

_RADIUS_SHARE = (0.35, 0.6)
_CENTRE_SHARE = 0.15
_SIDE_SHARE = (0.1, 0.4)
_END_SHARE = (0.1, 0.5)


def cut_field_of_view(batch: PatchBatch, generator: torch.Generator) -> PatchBatch:
    """Crop each patch to a cylinder, cut off one side in plane, or end the scan inside the patch.

    Voxels outside the field of view become air with label 0.
    """
    kept = torch.cat([_visible(batch, generator) for _ in range(len(batch.image))])
    image = torch.where(kept, batch.image, AIR_HU)
    return replace(batch, image=image, labels=batch.labels * kept)


def _visible(batch: PatchBatch, generator: torch.Generator) -> Tensor:
    """Voxels inside the field of view of one patch, (1, 1, z, y, x) bool."""
    kind = integer(0, 2, generator)
    if kind == 0:
        return _cylinder(batch, generator)
    axis = 0 if kind == 1 else integer(1, 2, generator)
    share = float(
        uniform((), *(_END_SHARE if axis == 0 else _SIDE_SHARE), generator=generator, device=torch.device("cpu"))
    )
    n = batch.shape[axis]
    steps = torch.arange(n, device=batch.image.device)
    kept = steps >= round(share * n) if chance(0.5, generator) else steps < n - round(share * n)
    view = [1, 1, 1, 1, 1]
    view[axis + 2] = n
    return kept.view(view).expand(1, 1, *batch.shape)


def _cylinder(batch: PatchBatch, generator: torch.Generator) -> Tensor:
    y, x = batch.axis_mm(1)[:, None], batch.axis_mm(2)[None]
    side = min(batch.shape[1] * batch.spacing_mm[1], batch.shape[2] * batch.spacing_mm[2])
    device = batch.image.device
    centre = side * uniform((2,), -_CENTRE_SHARE, _CENTRE_SHARE, generator=generator, device=device)
    radius = side * uniform((), *_RADIUS_SHARE, generator=generator, device=device)
    circle = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2
    return circle.expand(1, 1, *batch.shape)
