"""Training of pointwise probes on tables of frozen features, and tests on whole scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.metrics.overlap import dice_by_label
from DiffusionSegmentBackend.networks.pointwise_probe import pointwise_probe
from numpy.typing import NDArray
from torch import Tensor, nn

from .voxel_features import FeatureSource, VoxelTable, tiles

_ITERATIONS = 800
_BATCH = 2048
_LEARNING_RATE = 3e-3
_WEIGHT_DECAY = 1e-2
_CHUNK = 65_536


@dataclass(frozen=True)
class ProbeJob:
    """One probe: its head, and the indices of the cases for training and testing."""

    name: str
    head: str
    train: tuple[int, ...]
    test: tuple[int, ...]


def train_pointwise(
    tables: Sequence[VoxelTable], *, head: str, channels: Sequence[int], classes: int, seed: int = 0
) -> nn.Module:
    """Train with weighted cross-entropy and soft Dice over voxels, AdamW and a cosine learning rate."""
    torch.manual_seed(seed)
    probe = pointwise_probe(head, channels, classes)
    descriptors = torch.cat([table.descriptors for table in tables])
    labels = torch.cat([table.labels for table in tables])
    weights = torch.cat([table.weights for table in tables])
    weights = weights / weights.mean()
    optimizer = torch.optim.AdamW(probe.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _ITERATIONS)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(_ITERATIONS):
        chosen = torch.randint(len(labels), (_BATCH,), generator=generator)
        loss = weighted_loss(probe(descriptors[chosen].float()), labels[chosen], weights[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return probe.eval()


def weighted_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Logits (N, classes), labels (N,), weights (N,) -> weighted cross-entropy + 1 - mean soft Dice of the organs."""
    cross_entropy = (F.cross_entropy(logits, labels, reduction="none") * weights).sum() / weights.sum()
    p = logits.softmax(dim=1)[:, 1:]
    truth = F.one_hot(labels, logits.shape[1])[:, 1:].float()
    w = weights[:, None]
    dice = (2 * (w * p * truth).sum(0) + 1) / ((w * p).sum(0) + (w * truth).sum(0) + 1)
    return cross_entropy + 1 - dice.mean()


def score_pointwise(table: VoxelTable, probe: nn.Module, classes: int) -> NDArray[np.float64]:
    """Dice (classes - 1,) of a probe over the voxels of a table."""
    with torch.inference_mode():
        labels = [probe(part.float()).argmax(dim=1) for part in table.descriptors.split(_CHUNK)]
    predicted = torch.cat(labels).numpy().astype(np.uint8)
    return dice_by_label(predicted, table.labels.numpy().astype(np.uint8), classes)


def predict_pointwise(case: Case, source: FeatureSource, probe: nn.Module, classes: int) -> NDArray[np.float16]:
    """Probabilities (classes, z, y, x) of a probe on a whole scan; background outside the body."""
    probabilities = np.zeros((classes, *case.image.shape), np.float16)
    probabilities[0] = 1
    with torch.inference_mode():
        for tile, in_tile, in_case in tiles(case, source):
            logits = probe(source.descriptors(tile, in_tile).float())
            z, y, x = in_case.T
            probabilities[:, z, y, x] = logits.softmax(dim=1).T.half().numpy()
    return probabilities
