"""Thick slices: each is the mean over its thickness (a box profile), then read back at the patch's own slices."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .patch_batch import PatchBatch
from .random_numbers import log_uniform, uniform
from .separable import filtered

_THICKNESS_MM = (1.0, 10.0)


def thick_slices(
    batch: PatchBatch, generator: torch.Generator, *, thickness_mm: tuple[float, float] = _THICKNESS_MM
) -> PatchBatch:
    """Patches as if scanned in contiguous slices of a random thickness (log-uniform), labels as they were.

    Slices begin at a random height, so that borders fall anywhere. What is thinner than the patch's own slices
    changes nothing: the detail between them is not there.
    """
    count, device = len(batch.image), batch.image.device
    thickness = log_uniform((count,), *thickness_mm, generator=generator, device=device)
    begin = uniform((count,), 0.0, 1.0, generator=generator, device=device)
    n, spacing = batch.shape[0], batch.spacing_mm[0]
    drawn = zip(thickness.tolist(), begin.tolist(), strict=True)
    matrices = torch.stack([_profile(n, spacing, mm, share, device) for mm, share in drawn])
    return replace(batch, image=filtered(batch.image, (matrices, None, None)))


def _profile(n: int, spacing: float, thickness: float, begin: float, device: torch.device) -> Tensor:
    """Matrix (n, n): means over slices of `thickness` mm, the first `begin` of one below voxel 0, linear in between."""
    if thickness <= spacing:
        return torch.eye(n, device=device)
    voxels = torch.arange(n, device=device, dtype=torch.float32) * spacing
    count = int(n * spacing / thickness) + 2
    centres = (torch.arange(count, device=device, dtype=torch.float32) + 0.5 - begin) * thickness - spacing / 2
    # Each slice covers part of the first and last voxel it touches.
    covered = ((thickness + spacing) / 2 - (voxels[None] - centres[:, None]).abs()).clamp(0, min(spacing, thickness))
    total = covered.sum(dim=1, keepdim=True)
    means = covered / total.clamp(min=1e-6)
    weights = (1 - (voxels[:, None] - centres[None]).abs() / thickness).clamp(min=0) * (total[:, 0] > 0)
    return (weights / weights.sum(dim=1, keepdim=True)) @ means
