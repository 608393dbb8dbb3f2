"""Content of stomach and bowel: positive oral contrast, gas over fluid, water, and mixtures such as food and stool."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .patch_batch import AIR_HU, PatchBatch, box_of, in_box
from .random_numbers import integer, normal, uniform
from .regions import coverage, smooth_field
from .separable import blurred

_NOISE_HU = 9.0
_GRAIN_MM = 8.0
_LUMEN_MM = 4.0
_MIN_LUMEN_VOXELS = 200


@dataclass(frozen=True)
class Content:
    """Content of a lumen: HU of the fluid, share of the height filled with gas, spatial variation of the HU."""

    fluid_hu: float
    gas_share: float
    mixed_hu: float


def random_content(generator: torch.Generator) -> Content:
    """Positive contrast with or without gas; mostly gas; water with gas; or a mixture with bubbles."""
    kind = integer(0, 4, generator)
    a, b, c = uniform((3,), 0, 1, generator=generator, device=torch.device("cpu")).tolist()
    if kind <= 1:
        return Content(fluid_hu=150 + 350 * a * b, gas_share=0.7 * c if kind else 0.0, mixed_hu=25 * a)
    if kind == 2:
        return Content(fluid_hu=10 + 30 * a, gas_share=0.6 + 0.4 * b, mixed_hu=0.0)
    if kind == 3:
        return Content(fluid_hu=25 * a, gas_share=0.5 * b, mixed_hu=5.0)
    return Content(fluid_hu=-20 + 60 * a, gas_share=0.0, mixed_hu=60 + 120 * b)


def fill_stomach(batch: PatchBatch, generator: torch.Generator) -> PatchBatch:
    """Replace the content of the stomach in each patch; wall and labels are unchanged.

    A patch without a stomach, or with a small one, is unchanged.
    """
    parts = [_filled(batch.of(torch.tensor([n])), generator) for n in range(len(batch.image))]
    return replace(batch, image=torch.cat(parts))


def _filled(batch: PatchBatch, generator: torch.Generator) -> Tensor:
    content = random_content(generator)
    stomach = batch.organ("stomach")
    if stomach is None or not stomach.any():
        return batch.image
    box = box_of(stomach)
    part = batch.cut(box)
    inside = in_box(stomach, box)
    # A smoothed mask is 1/2 at its border; 0.84 is about one sigma inside a flat wall.
    share = blurred(inside.float(), _LUMEN_MM, batch.spacing_mm)
    lumen = coverage((share - 0.84) * 4 * _LUMEN_MM) * inside
    if int((lumen > 0.5).sum()) < _MIN_LUMEN_VOXELS:
        return batch.image
    return batch.with_part(box, filled(part, lumen, content, generator)).image


def filled(batch: PatchBatch, lumen: Tensor, content: Content, generator: torch.Generator) -> Tensor:
    """Fill `lumen` (1, 1, z, y, x), 0..1, of a batch of one patch with `content`; returns the image (1, 1, z, y, x).

    Gas is anterior (small y) of a horizontal level, as in a supine patient.
    """
    rows = (lumen > 0.5).any(dim=4).any(dim=2)[0, 0].nonzero().flatten()
    if not len(rows):
        return batch.image
    device = batch.image.device
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    level = top + content.gas_share * (bottom - top)
    fluid = content.fluid_hu + _NOISE_HU * normal(batch.image.shape, generator=generator, device=device)
    if content.mixed_hu:
        fluid = fluid + _mixture(batch, content.mixed_hu, generator)
    height = torch.arange(batch.shape[1], device=device, dtype=torch.float32)[:, None]
    wet = (height - level + 0.5).clamp(0, 1)
    return torch.lerp(batch.image, AIR_HU + wet * (fluid - AIR_HU), lumen)


def _mixture(batch: PatchBatch, spread_hu: float, generator: torch.Generator) -> Tensor:
    """Smooth noise with a grain of 8 mm and a standard deviation of `spread_hu`; the lowest values are bubbles."""
    lumps = smooth_field(batch, _GRAIN_MM, generator)
    return spread_hu * (lumps + 2 * (lumps + 0.8).clamp(max=0))
