"""Pseudo-labels for organs without annotation, from networks trained on other scans; uncertain voxels are ignored.

One round of self-training (noisy student, Xie et al. 2020, arXiv 1911.04252): the student is trained on augmented
patches with pseudo-labels predicted from the original scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..datasets.volumes import TrainingVolume, class_centres
from .label_loss import IGNORED

MIN_PROBABILITY = 0.7


def pseudo_labelled(
    volume: TrainingVolume, probabilities: Sequence[Tensor], *, min_probability: float = MIN_PROBABILITY
) -> TrainingVolume:
    """The scan with pseudo-labels for the organs without annotation, `IGNORED` in uncertain voxels.

    Existing labels are kept. Other voxels get the class that is the most likely for all networks, if its mean
    probability is at least `min_probability`. No voxels are added to annotated organs.

    Args:
        volume: A scan with some annotated organs, or none.
        probabilities: For each network, (classes, Z, Y, X) on the grid of the volume.
        min_probability: Minimum mean probability, 0..1.

    Raises:
        ValueError: `probabilities` is empty.
    """
    if not probabilities:
        raise ValueError("pseudo-labels need a network")
    mean = torch.stack([p.float() for p in probabilities]).mean(dim=0)
    confidence, predicted = mean.max(dim=0)
    known = confidence >= min_probability
    for own in probabilities:
        known &= own.argmax(dim=0) == predicted
    drawn = volume.drawn.clone()
    drawn[0] = False
    known &= ~drawn[predicted]
    labels = torch.where(known, predicted, IGNORED).to(torch.uint8)
    labels = torch.where(volume.labels > 0, volume.labels, labels)
    all_drawn = [True] * len(volume.drawn)
    return replace(
        volume,
        labels=labels,
        drawn=torch.tensor(all_drawn),
        centres=class_centres(volume.tissue.numpy(), labels.numpy(), all_drawn, seed=0),
    )
