"""Losses on label maps."""

from __future__ import annotations

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
