"""Errors of a segmenter on the scans of its own training, which it makes once their images are degraded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.datasets.volumes import TrainingVolume
from DiffusionSegmentBackend.models.model import Model
from DiffusionSegmentBackend.pipeline.features import first_stage
from DiffusionSegmentBackend.pipeline.progress import silent
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

# The labels of the truth and of a segmenter share a byte, so that a patch of both is read at once.
MAX_CLASSES = 16


def degraded(image: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """An image (z, y, x) in -1..1 as of a poor scan: blurred, noisy, of thick slices, with shifted grey values."""
    blurred = ndimage.gaussian_filter(image, random.uniform(0.5, 1.6))
    thick = ndimage.uniform_filter1d(blurred, int(random.integers(1, 6)), axis=0)
    noise = ndimage.gaussian_filter(random.standard_normal(image.shape).astype(np.float32), random.uniform(0.4, 1.2))
    noisy = thick + random.uniform(0.1, 0.4) / float(noise.std()) * noise
    changed = noisy * random.uniform(0.7, 1.4) + random.uniform(-0.2, 0.2)
    # Air stays air, by which the body is found.
    result: NDArray[np.float32] = np.where(image > -0.99, np.clip(changed, -1, 1), image).astype(np.float32)
    return result


@torch.inference_mode()
def degraded_prediction(case: Case, model: Model, random: np.random.Generator) -> NDArray[np.uint8]:
    """What the pre-segmenter of a model finds in the degraded image of a case with body coordinates (z, y, x)."""
    image, coordinates = replace(case, image=degraded(case.image, random)).padded(model.tile)
    stage = first_stage(image, coordinates, model, progress=silent, keep_features=False)
    z, y, x = (slice(0, n) for n in case.labels.shape)
    labels: NDArray[np.uint8] = stage.pre[:, z, y, x].argmax(dim=0).byte().numpy()
    return labels


def with_prediction(volume: TrainingVolume, predicted: NDArray[np.uint8]) -> TrainingVolume:
    """A volume whose labels also hold those of a segmenter, as `separated` reads them."""
    padding = [(0, side - n) for side, n in zip(volume.labels.shape, predicted.shape, strict=True)]
    both = volume.labels + MAX_CLASSES * torch.from_numpy(np.pad(predicted, padding))
    return replace(volume, labels=both)


def separated(labels: Tensor) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The labels of the truth and those of the segmenter."""
    both = labels.numpy()
    return both % MAX_CLASSES, both // MAX_CLASSES
