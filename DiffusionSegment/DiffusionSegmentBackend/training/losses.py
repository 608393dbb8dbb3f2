"""Losses on label maps."""

from __future__ import annotations

import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn

_NEVER = -1e4


class SegmentationLoss(nn.Module):
    """Soft Dice over the organs of the batch plus cross-entropy (MONAI), both on logits."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True, lambda_ce=1.0)

    def forward(self, logits: Tensor, labels: Tensor, drawn: Tensor | None = None) -> Tensor:
        """Logits (B, classes, z, y, x), labels (B, 1, z, y, x), drawn (B, classes) bool -> scalar, in float32."""
        logits = logits.float()
        return self.loss(logits if drawn is None or bool(drawn.all()) else marginalised(logits, drawn), labels)


def marginalised(logits: Tensor, drawn: Tensor) -> Tensor:
    """Logits (B, classes, ...) in which classes that nobody drew count as background: the marginal loss.

    Shi et al. 2021 (Medical Image Analysis 70, eq. 4): p(background) becomes the sum over background and all classes
    not `drawn` (B, classes).
    """
    absent = ~drawn.reshape(*drawn.shape, *([1] * (logits.ndim - 2))).to(logits.device)
    absent = absent.expand_as(logits)
    rest = logits.masked_fill(~absent, _NEVER)
    rest = torch.cat([logits[:, :1], rest[:, 1:]], dim=1)
    background = torch.logsumexp(rest, dim=1, keepdim=True)
    return torch.cat([background, logits[:, 1:].masked_fill(absent[:, 1:], _NEVER)], dim=1)
