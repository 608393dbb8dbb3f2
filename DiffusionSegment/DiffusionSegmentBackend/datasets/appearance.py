"""How a patch may look on another scanner or in another reader's window; its unit in and out, on any device.

Each change comes with its own probability, so that about one patch in seven stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Change = Callable[[Tensor, tuple[float, float], torch.Generator], Tensor]


def changed_appearance(image: Tensor, window: tuple[float, float], generator: torch.Generator) -> Tensor:
    """A patch (1, 1, Z, Y, X) with random window, gain, offset, gamma, blur, low resolution and noise."""
    for probability, change in _CHANGES:
        if _uniform(generator) < probability:
            image = change(image, window, generator)
    return image


def narrower_window(image: Tensor, window: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Clip to a random window within the model's and stretch it over that."""
    low, high = window
    width = (high - low) * _uniform(generator, 0.5, 1.0)
    begin = low + (high - low - width) * _uniform(generator)
    return (image.clamp(begin, begin + width) - begin) * ((high - low) / width) + low


def gain(image: Tensor, window: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Contrast about the middle of the window."""
    middle = sum(window) / 2
    return (image - middle) * _uniform(generator, 0.7, 1.3) + middle


def offset(image: Tensor, window: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Brightness, by up to an eighth of the window."""
    return image + (window[1] - window[0]) * _uniform(generator, -0.125, 0.125)


def gamma(image: Tensor, window: tuple[float, float], generator: torch.Generator) -> Tensor:
    """A power of the share of the window, 0.6 to 1.7."""
    low, high = window
    share = ((image - low) / (high - low)).clamp(0, 1)
    return share.pow(_uniform(generator, 0.6, 1.7)) * (high - low) + low


def blur(image: Tensor, window: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Gaussian in plane, sigma 0.4 to 1.4 voxels."""
    sigma = _uniform(generator, 0.4, 1.4)
    steps = torch.arange(-3, 4, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(image, (3, 3, 3, 3, 0, 0), mode="replicate")
    return F.conv3d(F.conv3d(padded, kernel.view(1, 1, 1, 7, 1)), kernel.view(1, 1, 1, 1, 7))


def low_resolution(image: Tensor, window: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Down to 0.4 to 1 of the voxels along each axis, and back."""
    size = [max(2, round(n * _uniform(generator, 0.4, 1.0))) for n in image.shape[2:]]
    small = F.interpolate(image, size=size, mode="nearest")
    return F.interpolate(small, size=image.shape[2:], mode="trilinear", align_corners=False)


def noise(image: Tensor, window: tuple[float, float], generator: torch.Generator) -> Tensor:
    """White noise of up to a twentieth of the window."""
    deviation = (window[1] - window[0]) * _uniform(generator, 0.0, 0.05)
    drawn = torch.randn(image.shape, generator=generator, device=generator.device).to(image.device)
    return image + deviation * drawn


_CHANGES: tuple[tuple[float, Change], ...] = (
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
