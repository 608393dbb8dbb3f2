"""Errors of a pre-segmenter on the scans of its own training, which it makes once their images are degraded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from ..datasets.labelled_cases import Case
from ..metrics.overlap import dice_by_label
from ..models.model import Model
from .cross_fitting import stage_of

_MAX_STRENGTH = 1.5
_TRIES, _TOLERANCE = 4, 0.035


def degraded(image: NDArray[np.float32], random: np.random.Generator, *, strength: float = 1.0) -> NDArray[np.float32]:
    """An image (z, y, x) in -1..1 as of a poor scan: blurred, noisy, of thick slices, with shifted grey values.

    With another `strength` than 1, the result lies on the line from the image to that, from 0 for the image itself.
    """
    blurred = ndimage.gaussian_filter(image, random.uniform(0.5, 1.6))
    thick = ndimage.uniform_filter1d(blurred, int(random.integers(1, 6)), axis=0)
    noise = ndimage.gaussian_filter(random.standard_normal(image.shape).astype(np.float32), random.uniform(0.4, 1.2))
    noisy = thick + random.uniform(0.1, 0.4) / float(noise.std()) * noise
    changed = noisy * random.uniform(0.7, 1.4) + random.uniform(-0.2, 0.2)
    # Air stays air, by which the body is found.
    result: NDArray[np.float32] = np.where(image > -0.99, np.clip(changed, -1, 1), image).astype(np.float32)
    return result if strength == 1 else np.clip(image + np.float32(strength) * (result - image), -1, 1)


def degraded_prediction(case: Case, model: Model, random: np.random.Generator) -> NDArray[np.uint8]:
    """What the pre-segmenter of a model finds in the degraded image of a case with body coordinates (z, y, x)."""
    found = presegmented(replace(case, image=degraded(case.image, random)), model)
    labels: NDArray[np.uint8] = found.argmax(dim=0).byte().numpy()
    return labels


@torch.inference_mode()
def presegmented(case: Case, model: Model) -> Tensor:
    """Probabilities (classes, z, y, x) of the pre-segmenter of a model for a case with body coordinates."""
    z, y, x = (slice(0, n) for n in case.labels.shape)
    return stage_of(case, model, keep_features=False).pre[:, z, y, x]


def prediction_with_dice(case: Case, model: Model, dice: float, *, seed: int) -> Tensor:
    """Probabilities (classes, z, y, x) for a case, degraded until the mean Dice of its organs is about `dice`.

    A few strengths are tried by bisection; the best is taken.
    """
    low, high, strength = 0.0, _MAX_STRENGTH, _MAX_STRENGTH / 2
    best, difference = torch.empty(0), float("inf")
    for _ in range(_TRIES):
        image = degraded(case.image, np.random.default_rng(seed), strength=strength)
        found = presegmented(replace(case, image=image), model)
        labels = found.argmax(dim=0).byte().numpy()
        reached = float(np.nanmean(dice_by_label(labels, case.labels, model.description.classes)))
        if abs(reached - dice) < difference:
            best, difference = found, abs(reached - dice)
        if difference < _TOLERANCE:
            break
        low, high = (strength, high) if reached > dice else (low, strength)
        strength = (low + high) / 2
    return best
