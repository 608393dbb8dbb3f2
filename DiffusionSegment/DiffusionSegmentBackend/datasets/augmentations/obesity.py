"""Obesity: more subcutaneous and visceral fat, and a larger or smaller body."""

from __future__ import annotations

import torch
from torch import Tensor

from .displacement import Cells
from .organ_size import grow
from .patch_batch import PatchBatch
from .random_numbers import log_uniform

_FAT_HU = (-122.0, -40.0)
_GROWTH = (1.4, 2.6)
_CATCH_UP = 1.5
_SCALES = (0.85, 1.2)
_AXIS_SCALES = (0.94, 1.06)


def add_fat(batch: PatchBatch, generator: torch.Generator, *, growth: tuple[float, float] = _GROWTH) -> Tensor:
    """Displacement (B, 3, cells) in mm of `Cells` that gives the fat a multiple of its volume, drawn from `growth`.

    Fat is segmented by its HU. Subcutaneous fat grows outwards, because the potential flow of a closed shell vanishes
    inside it; fat between organs moves them apart.
    """
    cells, device = Cells(batch.shape, batch.spacing_mm), batch.image.device
    fat = cells.mean((batch.image > _FAT_HU[0]) & (batch.image < _FAT_HU[1]))
    factors = log_uniform((len(fat),), *growth, generator=generator, device=torch.device("cpu")).tolist()
    fields = [
        grow(one[None], factor, cells, catch_up=_CATCH_UP)
        if one.any()
        else torch.zeros(1, 3, *one.shape[1:], device=device)
        for one, factor in zip(fat, factors, strict=True)
    ]
    return torch.cat(fields)


def scale_body(batch: PatchBatch, generator: torch.Generator) -> Tensor:
    """Displacement (B, 3, cells) in mm of `Cells` that scales a patch about its centre by 0.85 to 1.2.

    In addition, each axis is scaled by up to 6 %.
    """
    cells, device, count = Cells(batch.shape, batch.spacing_mm), batch.image.device, len(batch.image)
    scale = log_uniform((count, 1), *_SCALES, generator=generator, device=device)
    scales = scale * log_uniform((count, 3), *_AXIS_SCALES, generator=generator, device=device)
    axes = [
        (torch.arange(n, device=device) - (n - 1) / 2) * cell
        for n, cell in zip(cells.counts, cells.cell_mm, strict=True)
    ]
    positions = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return positions[None] * (1 / scales - 1)[:, :, None, None, None]
