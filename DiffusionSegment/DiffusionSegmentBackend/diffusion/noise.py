"""Noise for the whole volume as a pure function of (seed, sample, step, voxel).

Overlapping tiles have the same noise, which avoids seams, and a second run over part of a volume reproduces it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..imaging.volume import Box

_KEY_BITS = 64


def noise_field(
    shape: tuple[int, int, int], *, channels: int, seed: int, sample: int, step: int, z_offset: int = 0
) -> Tensor:
    """Standard normal noise (channels, z, y, x), float32 on the CPU.

    Every slice has its own counter-based generator (Philox), so that the slices from `z_offset` on of a larger field
    with the same y and x can be generated alone. `sample` and `step` count from 0.
    """
    depth, height, width = shape
    field = np.empty((depth, channels, height, width), dtype=np.float32)
    for z in range(depth):
        words = np.array([seed & (2**_KEY_BITS - 1), (sample << 40) ^ (step << 24) ^ (z + z_offset)], dtype=np.uint64)
        generator = np.random.Generator(np.random.Philox(key=words))
        generator.standard_normal(out=field[z], dtype=np.float32)
    return torch.from_numpy(field).movedim(1, 0).contiguous()


def noise_window(
    whole: tuple[int, int, int],
    window: Box,
    *,
    channels: int,
    seed: int,
    sample: int,
    step: int,
) -> Tensor:
    """The part of `noise_field(whole, ...)` inside `window` (z, y, x), bit-identical, without generating the rest."""
    z, y, x = window
    slices = (z.stop - z.start, whole[1], whole[2])
    field = noise_field(slices, channels=channels, seed=seed, sample=sample, step=step, z_offset=z.start)
    return field[:, :, y, x].contiguous()


def training_noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise of the shape, device and dtype of `like`, drawn on the CPU for reproducibility."""
    return torch.randn(like.shape, generator=generator).to(device=like.device, dtype=like.dtype)
