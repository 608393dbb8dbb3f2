"""The labels of a segmenter beside those of the truth, so that a patch of both is read at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from DiffusionSegmentBackend.datasets.volumes import TrainingVolume
from numpy.typing import NDArray
from torch import Tensor

# The labels of the truth and of a segmenter share a byte, so that a patch of both is read at once.
MAX_CLASSES = 16


def with_prediction(volume: TrainingVolume, predicted: NDArray[np.uint8]) -> TrainingVolume:
    """A volume whose labels also hold those of a segmenter, as `separated` reads them."""
    padding = [(0, side - n) for side, n in zip(volume.labels.shape, predicted.shape, strict=True)]
    both = volume.labels + MAX_CLASSES * torch.from_numpy(np.pad(predicted, padding))
    return replace(volume, labels=both)


def separated(labels: Tensor) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The labels of the truth and those of the segmenter."""
    both = labels.numpy()
    return both % MAX_CLASSES, both // MAX_CLASSES
