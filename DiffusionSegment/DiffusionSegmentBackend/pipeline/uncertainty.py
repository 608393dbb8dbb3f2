"""What the samples disagree about: predictive entropy, mutual information, volume intervals.

Entropy and mutual information are shares of ln(classes), the entropy of a guess: 0..1 without a unit, whatever the base
of the logarithm. Times ln(classes) they are nats, times log2(classes) bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def entropy(probabilities: Tensor) -> Tensor:
    """Shannon entropy over the classes (classes, ...) -> (...), scaled to 0..1 by log(classes), float32."""
    if probabilities.ndim == 4:
        # Slice by slice, what is formed on the way stays small.
        return torch.stack([entropy(part) for part in probabilities.unbind(dim=1)])
    probabilities = probabilities.float()
    return -torch.special.xlogy(probabilities, probabilities).sum(dim=0) / math.log(probabilities.shape[0])


@dataclass
class SampleStatistics:
    """Running sums over K samples; of each sample only the label map (z, y, x), uint8, is kept."""

    probability_sum: Tensor
    entropy_sum: Tensor
    sample_labels: list[Tensor] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Samples so far."""
        return len(self.sample_labels)

    @classmethod
    def empty(cls, classes: int, shape: tuple[int, int, int]) -> SampleStatistics:
        """Sums of no samples."""
        return cls(torch.zeros((classes, *shape)), torch.zeros(shape))

    def add(self, probabilities: Tensor) -> None:
        """Take in one sample's probabilities (classes, z, y, x)."""
        self.probability_sum += probabilities
        self.entropy_sum += entropy(probabilities)
        self.sample_labels.append(probabilities.argmax(dim=0).byte())

    @property
    def mean(self) -> Tensor:
        """Mean probability of the samples (classes, z, y, x)."""
        return self.probability_sum / self.count

    @property
    def mutual_information(self) -> Tensor:
        """H[mean p] - mean H[p] (Houlsby et al. 2011) over ln(classes), 0..1: what the samples disagree about."""
        return (entropy(self.mean) - self.entropy_sum / self.count).clamp_(min=0)


def volume_interval_ml(probability: NDArray, voxel_ml: float, *, level: float = 0.9) -> tuple[float, float]:
    """Interval of an organ's volume in mL that holds with probability `level` if errors move the whole surface.

    Under such fully dependent voxels the q-quantile of the volume is the volume where p > 1 - q.
    """
    tail = (1 - level) / 2
    low, high = (float(np.count_nonzero(probability > limit)) * voxel_ml for limit in (1 - tail, tail))
    return low, high
