"""Labels for what nobody drew in a scan, from networks that were trained on other scans; doubtful voxels are ignored.

One round of self-training (noisy student, Xie et al. 2020, arXiv 1911.04252): the networks look at the scan as it is,
the student at augmented patches of it.
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
    """The scan with every organ labelled, or `IGNORED` where it is doubtful.

    A reader's labels stay. Elsewhere a voxel gets the class that all networks find most likely, if the mean of their
    probabilities is `min_probability` or more; an organ that the reader drew in this scan is not given to further
    voxels.

    Args:
        volume: A scan with some organs drawn, or none.
        probabilities: Of each network, (classes, Z, Y, X) on the volume's grid.
        min_probability: 0..1.

    Raises:
        ValueError: There are no probabilities.
    """
    if not probabilities:
        raise ValueError("pseudo-labels need a network")
    mean = torch.stack([p.float() for p in probabilities]).mean(dim=0)
    sure, found = mean.max(dim=0)
    known = sure >= min_probability
    for own in probabilities:
        known &= own.argmax(dim=0) == found
    drawn = volume.drawn.clone()
    drawn[0] = False
    known &= ~drawn[found]
    labels = torch.where(known, found, IGNORED).to(torch.uint8)
    labels = torch.where(volume.labels > 0, volume.labels, labels)
    everything = [True] * len(volume.drawn)
    return replace(
        volume,
        labels=labels,
        drawn=torch.tensor(everything),
        centres=class_centres(volume.tissue.numpy(), labels.numpy(), everything, seed=0),
    )
