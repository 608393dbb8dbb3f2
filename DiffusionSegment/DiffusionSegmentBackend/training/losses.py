"""Losses on label maps with MONAI; see `label_loss` for the faster equivalent of second-generation training."""

from __future__ import annotations

import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn

_MIN_LOGIT = -1e4


class SegmentationLoss(nn.Module):
    """Soft Dice over the organs of the batch plus cross-entropy (MONAI), both on logits."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True, lambda_ce=1.0)

    def forward(self, logits: Tensor, labels: Tensor, drawn: Tensor | None = None) -> Tensor:
        """Logits (B, classes, z, y, x), labels (B, 1, z, y, x), drawn (B, classes) bool -> scalar, in float32."""
        logits = logits.float()
        loss: Tensor = self.loss(logits if drawn is None or bool(drawn.all()) else marginalised(logits, drawn), labels)
        return loss


def marginalised(logits: Tensor, drawn: Tensor) -> Tensor:
    """Logits (B, classes, ...) with the classes that are not annotated merged into the background.

    Marginal loss of Shi et al. 2021 (Medical Image Analysis 70, eq. 4): p(background) is the sum over background and
    all classes not in `drawn` (B, classes).
    """
    absent = ~drawn.reshape(*drawn.shape, *([1] * (logits.ndim - 2))).to(logits.device)
    absent = absent.expand_as(logits)
    rest = logits.masked_fill(~absent, _MIN_LOGIT)
    rest = torch.cat([logits[:, :1], rest[:, 1:]], dim=1)
    background = torch.logsumexp(rest, dim=1, keepdim=True)
    return torch.cat([background, logits[:, 1:].masked_fill(absent[:, 1:], _MIN_LOGIT)], dim=1)
