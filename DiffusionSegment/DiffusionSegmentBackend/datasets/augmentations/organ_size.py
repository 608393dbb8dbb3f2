"""Organomegaly and atrophy: volume changes of spleen, liver or kidneys with displacement of the neighbouring tissue.

The organ is a source of incompressible tissue: a potential flow v = grad(phi) with laplace(phi) = q inside the organ
and 0 outside changes the volume of the organ only. The flow is integrated in several steps, with the source on the
deformed organ, so that the map stays invertible (Christensen et al. 1996).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .displacement import Cells, composed, warped
from .masses import visible_organ
from .patch_batch import PatchBatch
from .random_numbers import chance, log_uniform

ORGANS = ("spleen", "liver", "left_kidney", "right_kidney")
GROWN = (2.0, 4.0)
SHRUNK = (0.35, 0.7)
_MIN_ORGAN_ML = 20.0
_MAX_ORGAN_ML = 3500.0
_STEPS = 5
_GROWN_SHARE = 0.7
_MAX_CATCH_UP = 2.0


def resize_organ(
    batch: PatchBatch,
    generator: torch.Generator,
    *,
    organs: Sequence[str] = ORGANS,
    grown: tuple[float, float] = GROWN,
    shrunk: tuple[float, float] = SHRUNK,
) -> Tensor:
    """Displacement (B, 3, cells) in mm of `Cells` that changes the volume of one organ of each patch.

    The factor is log-uniform in `grown` (with probability 0.7) or `shrunk`; no organ grows beyond 3.5 litres. A patch
    with less than 20 mL of each of the `organs` is not deformed.
    """
    cells = Cells(batch.shape, batch.spacing_mm)
    fields = []
    for n in range(len(batch.image)):
        limits = grown if chance(_GROWN_SHARE, generator) else shrunk
        factor = float(log_uniform((), *limits, generator=generator, device=torch.device("cpu")))
        organ = visible_organ(batch.of(torch.tensor([n])), organs, min_ml=_MIN_ORGAN_ML, generator=generator)
        fields.append(_field(organ, factor, cells, batch.image.device))
    return torch.cat(fields)


def _field(organ: Tensor | None, factor: float, cells: Cells, device: torch.device) -> Tensor:
    """Displacement (1, 3, cells) in mm for the mask (1, 1, z, y, x) of an organ; zero for None."""
    if organ is None:
        return torch.zeros(1, 3, *cells.counts, device=device)
    volume_ml = float(organ.sum()) * math.prod(cells.spacing_mm) / 1000
    share = cells.mean(organ)
    catch_up = 1.0 if _is_cut(share) else _MAX_CATCH_UP
    return grow(share, min(factor, max(1.0, _MAX_ORGAN_ML / volume_ml)), cells, catch_up=catch_up)


def _is_cut(share: Tensor) -> bool:
    """Whether an organ (1, 1, cells) is cut off by the border of the patch."""
    core = share[..., 1:-1, 1:-1, 1:-1]
    return float(core.sum()) < 0.97 * float(share.sum())


def grow(organ: Tensor, factor: float, cells: Cells, *, catch_up: float) -> Tensor:
    """Displacement (1, 3, cells) in mm after which an organ has `factor` times its volume.

    Args:
        organ: (1, 1, cells), the share of each cell that the organ fills, 0..1.
        factor: Ratio of the volumes after and before.
        cells: The grid.
        catch_up: Each step requests the remaining change of log-volume, corrected for the shortfall of the step before,
            but at most `catch_up` times the planned change. The limit is needed for organs that are cut off by the
            border of the patch, whose visible volume cannot reach the target.
    """
    cell = torch.tensor(cells.cell_mm, device=organ.device).view(1, 3, 1, 1, 1)
    displacement = torch.zeros(1, 3, *organ.shape[2:], device=organ.device)
    present, reached, missed = organ, 0.0, 1.0
    due = math.log(factor)
    limit = catch_up * abs(due) / _STEPS
    for step in range(_STEPS):
        rate = max(-limit, min(limit, missed * (due - reached) / (_STEPS - step)))
        flow = potential_flow(rate * present, cells.cell_mm)
        displacement = composed(displacement, -flow, cells.cell_mm)
        present = warped(organ, displacement / cell)
        before, reached = reached, math.log(max(float(present.sum()), 1e-3) / float(organ.sum()))
        missed = max(1.0, min(catch_up, rate / (reached - before))) if rate * (reached - before) > 0 else 1.0
    return displacement


def potential_flow(source: Tensor, cell_mm: Sequence[float]) -> Tensor:
    """The curl-free flow (1, 3, z, y, x) in mm with divergence `source` (1, 1, z, y, x).

    Solved by Fourier transform in a box of twice the size, to reduce the influence of the periodic copies.
    """
    size = [2 * n for n in source.shape[2:]]
    spectrum = torch.fft.rfftn(source[0, 0], s=size)
    waves = [
        2 * math.pi * torch.fft.fftfreq(n, cell, device=source.device) for n, cell in zip(size, cell_mm, strict=True)
    ]
    waves[2] = 2 * math.pi * torch.fft.rfftfreq(size[2], cell_mm[2], device=source.device)
    z, y, x = torch.meshgrid(*waves, indexing="ij")
    squares = z**2 + y**2 + x**2
    squares[0, 0, 0] = 1.0
    potential = -spectrum / squares
    potential[0, 0, 0] = 0
    parts = [torch.fft.irfftn(1j * wave * potential, s=size) for wave in (z, y, x)]
    return torch.stack([p[: source.shape[2], : source.shape[3], : source.shape[4]] for p in parts])[None]
