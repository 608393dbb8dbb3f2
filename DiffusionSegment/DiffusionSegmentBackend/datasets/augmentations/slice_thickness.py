"""Thick slices: mean over the slice thickness (a box profile), interpolated back to the slices of the patch."""

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
    """Simulate contiguous slices of a random thickness (log-uniform); labels are unchanged.

    The first slice starts at a random height. A thickness below the spacing of the patch has no effect.
    """
    count, device = len(batch.image), batch.image.device
    thickness = log_uniform((count,), *thickness_mm, generator=generator, device=device)
    begin = uniform((count,), 0.0, 1.0, generator=generator, device=device)
    n, spacing = batch.shape[0], batch.spacing_mm[0]
    drawn = zip(thickness.tolist(), begin.tolist(), strict=True)
    matrices = torch.stack([_profile(n, spacing, mm, share, device) for mm, share in drawn])
    return replace(batch, image=filtered(batch.image, (matrices, None, None)))


def _profile(n: int, spacing: float, thickness: float, begin: float, device: torch.device) -> Tensor:
    """Matrix (n, n): averaging over slices of `thickness` mm, offset by `begin` of a slice, and interpolation."""
    if thickness <= spacing:
        return torch.eye(n, device=device)
    voxels = torch.arange(n, device=device, dtype=torch.float32) * spacing
    count = int(n * spacing / thickness) + 2
    centres = (torch.arange(count, device=device, dtype=torch.float32) + 0.5 - begin) * thickness - spacing / 2
    # A slice covers its first and last voxel partially.
    covered = ((thickness + spacing) / 2 - (voxels[None] - centres[:, None]).abs()).clamp(0, min(spacing, thickness))
    total = covered.sum(dim=1, keepdim=True)
    means = covered / total.clamp(min=1e-6)
    weights = (1 - (voxels[:, None] - centres[None]).abs() / thickness).clamp(min=0) * (total[:, 0] > 0)
    return (weights / weights.sum(dim=1, keepdim=True)) @ means
