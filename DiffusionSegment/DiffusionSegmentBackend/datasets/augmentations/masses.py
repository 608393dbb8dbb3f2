"""Masses in liver, spleen and kidneys: hypodense, enhancing, cystic and necrotic; they keep the label of the organ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .patch_batch import PatchBatch, in_box
from .random_numbers import integer, log_uniform, uniform
from .regions import Ball, box_around, coverage, signed_distance, smooth_field
from .separable import blurred

ORGANS = ("liver", "spleen", "left_kidney", "right_kidney")
_MIN_ORGAN_ML = 5.0
_RADIUS_MM = (4.0, 32.0)
_MAX_LESIONS = 5
_STRETCH = (0.75, 1.3)
_BUMP_SHARE = 0.15
_RIM_MM = 4.0
_NOISE_SIGMA_MM = 1.5
_TEXTURE_SHARE = 0.8


@dataclass(frozen=True)
class _Kind:
    """HU of core and rim, relative to the mean of the organ unless `absolute`."""

    core: tuple[float, float]
    rim: float
    absolute: bool = False


_KINDS = (
    _Kind((-65.0, -20.0), 0.0),
    _Kind((25.0, 70.0), 0.0),
    _Kind((0.0, 18.0), 0.0, absolute=True),
    _Kind((-75.0, -35.0), 60.0),
)


def add_masses(batch: PatchBatch, generator: torch.Generator, *, organs: Sequence[str] = ORGANS) -> PatchBatch:
    """Add one to five lesions of one kind, 4 to 32 mm in radius, to one organ of each patch; labels are unchanged.

    A patch with less than 5 mL of each of the `organs` is unchanged.
    """
    parts = [_with_masses(batch.of(torch.tensor([n])), generator, organs) for n in range(len(batch.image))]
    return replace(batch, image=torch.cat(parts))


def _with_masses(batch: PatchBatch, generator: torch.Generator, organs: Sequence[str]) -> Tensor:
    mask = visible_organ(batch, organs, min_ml=_MIN_ORGAN_ML, generator=generator)
    if mask is None:
        return batch.image
    mean = batch.image[mask].mean()
    balls = _balls(mask, batch, generator)
    kind = _KINDS[integer(0, len(_KINDS) - 1, generator)]
    core = uniform((), *kind.core, generator=generator, device=batch.image.device)
    box = box_around(balls, batch.shape, batch.spacing_mm)
    part = batch.cut(box)
    depth = signed_distance([ball.relative_to(box) for ball in balls], part)
    largest = max(ball.radius_mm for ball in balls)
    depth = depth + _BUMP_SHARE * largest * smooth_field(part, largest / 2, generator).clamp(-1.5, 1.5)
    target = (core if kind.absolute else mean + core) + kind.rim * coverage(_RIM_MM - depth)
    texture = part.image - blurred(part.image, _NOISE_SIGMA_MM, batch.spacing_mm)
    weight = coverage(depth) * in_box(mask, box)
    return batch.with_part(box, torch.lerp(part.image, target + _TEXTURE_SHARE * texture, weight)).image


def visible_organ(
    batch: PatchBatch, organs: Sequence[str], *, min_ml: float, generator: torch.Generator
) -> Tensor | None:
    """Mask (1, 1, z, y, x) bool of a random one of the `organs` with at least `min_ml` in a batch of one patch."""
    z, y, x = batch.spacing_mm
    masks = [mask for name in organs if (mask := batch.organ(name)) is not None]
    visible = [mask for mask in masks if float(mask.sum()) * z * y * x / 1000 >= min_ml]
    return visible[integer(0, len(visible) - 1, generator)] if visible else None


def _balls(mask: Tensor, batch: PatchBatch, generator: torch.Generator) -> list[Ball]:
    cpu = torch.device("cpu")
    voxels = mask[0, 0].nonzero()
    largest = 0.5 * (float(mask.sum()) * torch.tensor(batch.spacing_mm).prod().item()) ** (1 / 3)
    balls = []
    for _ in range(integer(1, _MAX_LESIONS, generator)):
        z, y, x = voxels[integer(0, len(voxels) - 1, generator)].tolist()
        radius = float(log_uniform((), *_RADIUS_MM, generator=generator, device=cpu))
        a, b, c = uniform((3,), *_STRETCH, generator=generator, device=cpu).tolist()
        balls.append(Ball((z, y, x), min(radius, largest), (a, b, c)))
    return balls
