"""Losses on label maps."""

from __future__ import annotations

import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn


class SegmentationLoss(nn.Module):
    """Soft Dice over the organs of the batch plus cross-entropy (MONAI), both on logits."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True, lambda_ce=1.0)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, classes, z, y, x), labels (B, 1, z, y, x) -> scalar, computed in float32."""
        return self.loss(logits.float(), labels)


def mean_hard_dice(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean Dice of the arg max over the organs present in the batch, for the log."""
    classes = logits.shape[1]
    predicted = logits.argmax(dim=1).flatten()
    truth = labels.flatten()
    counts = [torch.bincount(v, minlength=classes)[1:].double() for v in (predicted, truth, truth[predicted == truth])]
    present = counts[1] > 0
    return (2 * counts[2] / (counts[0] + counts[1]).clamp(min=1))[present].mean().float()
