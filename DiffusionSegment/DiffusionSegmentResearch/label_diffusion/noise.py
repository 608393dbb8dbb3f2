"""Broad-band Gaussian noise: white noise and interpolated noise of lower frequencies, with variance 1 at every voxel.

The label of an organ is the mean of thousands of voxels of its state, over which white noise averages out; noise that
is correlated over the size of organs hides it. Noise without a white part would show every edge (the ideal observer
whitens it), therefore all frequencies have a share. Multi-resolution noise of this kind is known from images (Ke et al.
2024, Marigold, arXiv 2312.02145).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Voxels between independent values, and the share of the variance.
OCTAVES = ((1, 0.5), (2, 0.2), (4, 0.2), (8, 0.1))


def broad_band_noise(shape: tuple[int, int, int], *, channels: int, generator: torch.Generator) -> Tensor:
    """Noise (channels, z, y, x), float32 on the CPU, with mean 0 and variance 1 at every voxel."""
    total = torch.zeros((channels, *shape))
    for interval, share in OCTAVES:
        total += share**0.5 * _octave(shape, interval, channels, generator)
    return total


def white_noise(shape: tuple[int, int, int], *, channels: int, generator: torch.Generator) -> Tensor:
    """Standard normal noise (channels, z, y, x), float32 on the CPU."""
    return torch.randn((channels, *shape), generator=generator)


def _octave(shape: tuple[int, int, int], interval: int, channels: int, generator: torch.Generator) -> Tensor:
    """White noise on a grid with `interval` voxels per cell, at a random phase, interpolated linearly."""
    if interval == 1:
        return white_noise(shape, channels=channels, generator=generator)
    z, y, x = (n // interval + 3 for n in shape)
    field = white_noise((z, y, x), channels=channels, generator=generator)[None]
    fine = F.interpolate(field, scale_factor=float(interval), mode="trilinear", align_corners=False)[0]
    # Between `interval` / 2 and 3 / 2 `interval`, where two values of the grid surround every voxel.
    starts = [interval // 2 + int(torch.randint(interval, (), generator=generator)) for _ in shape]
    box = tuple(slice(start, start + size) for start, size in zip(starts, shape, strict=True))
    scales = [1 / _deviation(interval)[torch.arange(side.start, side.stop) % interval] for side in box]
    scale = scales[0][:, None, None] * scales[1][:, None] * scales[2]
    return fine[(slice(None), *box)] * scale


def _deviation(interval: int) -> Tensor:
    """Standard deviation (interval,) of the linear interpolation of white noise by phase."""
    weight = ((torch.arange(interval) + 0.5) / interval - 0.5) % 1
    return ((1 - weight) ** 2 + weight**2).sqrt()
