"""Uncertainty of the samples: predictive entropy, mutual information, volume intervals.

Entropy and mutual information are divided by ln(classes), the entropy of the uniform distribution: 0..1 without a unit.
Multiplied by ln(classes) they are in nats, by log2(classes) in bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..schema.model_manifest import VOLUME_TAIL


def entropy(probabilities: Tensor) -> Tensor:
    """Shannon entropy over the classes (classes, ...) -> (...), scaled to 0..1 by log(classes), float32."""
    if probabilities.ndim == 4:
        # Slice by slice, to limit the memory of intermediate results.
        return torch.stack([entropy(part) for part in probabilities.unbind(dim=1)])
    probabilities = probabilities.float()
    terms: Tensor = torch.special.xlogy(probabilities, probabilities)
    return -terms.sum(dim=0) / math.log(probabilities.shape[0])


def error_probability(probabilities: Tensor, *, given_weight: float = 0.0) -> Tensor:
    """Probability (...), 0..1, that the arg max of the probabilities (classes, ...) is the wrong label.

    For a segmentation of the model's own it is 1 - max p. For one that is reviewed, whose labels have the weight w =
    `given_weight` in the ensemble (`reviewed.mix_with_given`), it is (1 - max p') / (1 - w) = 1 - p_model(given label).
    """
    return error_of_best(probabilities.amax(dim=0).float(), given_weight=given_weight)


def error_of_best(best: Tensor, *, given_weight: float = 0.0) -> Tensor:
    """`error_probability` of the largest probabilities, of any shape."""
    return ((1 - best) / (1 - given_weight)).clamp(0, 1)


@dataclass
class SampleStatistics:
    """Running sums over samples, and the label map (z, y, x), uint8, of each sample."""

    probability_sum: Tensor
    entropy_sum: Tensor
    sample_labels: list[Tensor] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.sample_labels)

    @classmethod
    def empty(cls, classes: int, shape: tuple[int, int, int]) -> SampleStatistics:
        """Statistics without samples, for maps of `shape` (z, y, x)."""
        return cls(torch.zeros((classes, *shape)), torch.zeros(shape))

    def add(self, probabilities: Tensor) -> None:
        """Add the probabilities (classes, z, y, x) of one sample."""
        self.probability_sum += probabilities
        self.entropy_sum += entropy(probabilities)
        self.sample_labels.append(probabilities.argmax(dim=0).byte())

    @property
    def mean(self) -> Tensor:
        """Mean probability of the samples (classes, z, y, x)."""
        return self.probability_sum / self.count

    @property
    def mutual_information(self) -> Tensor:
        """Mutual information H[mean p] - mean H[p] (Houlsby et al. 2011) over ln(classes), 0..1."""
        return (entropy(self.mean) - self.entropy_sum / self.count).clamp_(min=0)


def volume_interval_ml(
    probability: NDArray[np.floating[Any]], voxel_ml: float, *, tail: float = VOLUME_TAIL
) -> tuple[float, float]:
    """90 % interval of an organ's volume in mL: the volumes of the voxels with p > 1 - tail and p > tail.

    With fully dependent voxels, whose errors move the whole surface, the q-quantile of the volume is the volume where
    p > 1 - q, and `tail` is 0.05. The tail of a model may be calibrated instead (`training.volume_calibration`).
    """
    low, high = (float(np.count_nonzero(probability > limit)) * voxel_ml for limit in (1 - tail, tail))
    return low, high
