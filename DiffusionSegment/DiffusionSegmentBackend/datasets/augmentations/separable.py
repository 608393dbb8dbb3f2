"""Separable linear filters as matrix products, whose cost does not depend on the width of the filter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def gaussian_matrix(n: int, sigma: Tensor) -> Tensor:
    """Rows (B, n, n) of Gaussians of `sigma` (B,) voxels, each row normalised to sum 1."""
    return _normalised(torch.exp(-0.5 * (_distances(n, sigma) / sigma.clamp(min=1e-3)[:, None, None]) ** 2))


def interpolation_matrix(n: int, cells: int, stride: float, device: torch.device) -> Tensor:
    """Rows (1, n, cells) for linear interpolation from cells of `stride` voxels to `n` voxels, constant at the ends."""
    positions = (torch.arange(n, device=device, dtype=torch.float32) + 0.5) / stride - 0.5
    centres = torch.arange(cells, device=device, dtype=torch.float32)
    return (1 - (positions.clamp(0, cells - 1)[:, None] - centres[None]).abs()).clamp(min=0)[None]


def interpolated(coarse: Tensor, shape: Sequence[int], strides: Sequence[float]) -> Tensor:
    """Linear interpolation of (B, C, *cells) to a patch of `shape` (z, y, x), with `strides` voxels per cell."""
    z, y, x = (
        interpolation_matrix(n, cells, stride, coarse.device)
        for n, cells, stride in zip(shape, coarse.shape[2:], strides, strict=True)
    )
    return filtered(filtered(coarse, (z, None, None)), (None, y, x))


def filtered(volume: Tensor, matrices: tuple[Tensor | None, Tensor | None, Tensor | None]) -> Tensor:
    """Volume (B, C, z, y, x) with matrices (B or 1, m, n) applied along z, y and x; None for no filter."""
    along_z, along_y, along_x = matrices
    if along_y is not None:
        volume = along_y[:, None, None] @ volume
    if along_x is not None:
        volume = volume @ along_x[:, None, None].transpose(-1, -2)
    if along_z is not None:
        flat = along_z[:, None] @ volume.flatten(3)
        volume = flat.reshape(*flat.shape[:3], *volume.shape[3:])
    return volume


def blurred(volume: Tensor, sigma_mm: float, spacing_mm: Sequence[float]) -> Tensor:
    """Gaussian smoothing by `sigma_mm` of a volume (B, C, z, y, x) with voxels of `spacing_mm` (z, y, x)."""
    sigmas = [torch.tensor([sigma_mm / step], device=volume.device) for step in spacing_mm]
    z, y, x = (gaussian_matrix(n, sigma) for n, sigma in zip(volume.shape[2:], sigmas, strict=True))
    return filtered(volume, (z, y, x))


def _distances(n: int, like: Tensor) -> Tensor:
    steps = torch.arange(n, device=like.device, dtype=torch.float32)
    return (steps[:, None] - steps[None, :]).abs()[None]


def _normalised(rows: Tensor) -> Tensor:
    return rows / rows.sum(dim=-1, keepdim=True)
