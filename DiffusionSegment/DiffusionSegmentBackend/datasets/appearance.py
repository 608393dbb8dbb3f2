"""Intensity augmentation of patches of any modality, in the unit of the window, on any device.

Each transform is applied with its own probability; about one patch in seven stays unchanged.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Transform = Callable[[Tensor, tuple[float, float], torch.Generator], Tensor]


def changed_appearance(image: Tensor, window: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Apply random window, gain, offset, gamma, blur, low resolution and noise to a patch (1, 1, Z, Y, X)."""
    for probability, transform in _TRANSFORMS:
        if _uniform(generator) < probability:
            image = transform(image, window, generator)
    return image


def narrower_window(image: Tensor, window: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Clip to a random window inside the model's window and rescale it to that window."""
    low, high = window
    width = (high - low) * _uniform(generator, 0.5, 1.0)
    start = low + (high - low - width) * _uniform(generator)
    return (image.clamp(start, start + width) - start) * ((high - low) / width) + low


def gain(image: Tensor, window: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Scale the contrast about the centre of the window by 0.7 to 1.3."""
    middle = sum(window) / 2
    return (image - middle) * _uniform(generator, 0.7, 1.3) + middle


def offset(image: Tensor, window: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Shift the intensities by up to an eighth of the window."""
    return image + (window[1] - window[0]) * _uniform(generator, -0.125, 0.125)


def gamma(image: Tensor, window: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Gamma correction within the window, exponent 0.6 to 1.7."""
    low, high = window
    share = ((image - low) / (high - low)).clamp(0, 1)
    return share.pow(_uniform(generator, 0.6, 1.7)) * (high - low) + low


def blur(image: Tensor, window: tuple[float, float], generator: torch.Generator) -> Tensor:
    """In-plane Gaussian smoothing, sigma 0.4 to 1.4 voxels."""
    sigma = _uniform(generator, 0.4, 1.4)
    steps = torch.arange(-3, 4, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(image, (3, 3, 3, 3, 0, 0), mode="replicate")
    return F.conv3d(F.conv3d(padded, kernel.view(1, 1, 1, 7, 1)), kernel.view(1, 1, 1, 1, 7))


def low_resolution(image: Tensor, window: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Downsample each axis by a factor of 0.4 to 1 and upsample again."""
    size = [max(2, round(n * _uniform(generator, 0.4, 1.0))) for n in image.shape[2:]]
    small = F.interpolate(image, size=size, mode="nearest")
    return F.interpolate(small, size=image.shape[2:], mode="trilinear", align_corners=False)


def noise(image: Tensor, window: tuple[float, float], generator: torch.Generator) -> Tensor:
    """White noise with a standard deviation of up to a twentieth of the window."""
    deviation = (window[1] - window[0]) * _uniform(generator, 0.0, 0.05)
    drawn = torch.randn(image.shape, generator=generator, device=generator.device).to(image.device)
    return image + deviation * drawn


_TRANSFORMS: tuple[tuple[float, Transform], ...] = (
    (0.3, narrower_window),
    (0.3, gain),
    (0.3, offset),
    (0.2, gamma),
    (0.15, blur),
    (0.2, low_resolution),
    (0.3, noise),
)


def _uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, device=generator.device))
