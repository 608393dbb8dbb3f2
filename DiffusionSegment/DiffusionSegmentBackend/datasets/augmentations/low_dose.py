"""Low dose: Gaussian noise with the in-plane correlation of a reconstruction kernel."""

from __future__ import annotations

from dataclasses import replace

import torch

from .patch_batch import PatchBatch
from .random_numbers import normal, uniform
from .separable import filtered, gaussian_matrix

_NOISE_HU = (5.0, 40.0)
_GRAIN_MM = (0.5, 1.5)


def low_dose(batch: PatchBatch, generator: torch.Generator, *, noise_hu: tuple[float, float] = _NOISE_HU) -> PatchBatch:
    """Add noise of a standard deviation in `noise_hu`, correlated in plane by a Gaussian of 0.5 to 1.5 mm.

    Slices are independent. Voxels at the minimum or maximum of the image are unchanged, because their values may have
    been clipped.
    """
    image, device = batch.image, batch.image.device
    count = len(image)
    sigma_mm = uniform((count,), *_GRAIN_MM, generator=generator, device=device)
    level = uniform((count, 1, 1, 1, 1), *noise_hu, generator=generator, device=device)
    along = [gaussian_matrix(n, sigma_mm / step) for n, step in zip(batch.shape[1:], batch.spacing_mm[1:], strict=True)]
    noise = filtered(normal(image.shape, generator=generator, device=device), (None, along[0], along[1]))
    noise = noise / noise.std(dim=(1, 2, 3, 4), keepdim=True)
    lowest, highest = image.amin(dim=(1, 2, 3, 4), keepdim=True), image.amax(dim=(1, 2, 3, 4), keepdim=True)
    inside = (image > lowest) & (image < highest)
    return replace(batch, image=torch.where(inside, image + level * noise, image))
