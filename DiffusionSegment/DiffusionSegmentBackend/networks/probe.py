"""Probe: a small non-linear head on the backbone's features, whose output is the pre-segmentation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .unet import convolution


class Probe(nn.Module):
    """Feature-pyramid head similar to vox2vec (Goncharov et al. 2023): 1x1x1 per level, summed coarse to fine.

    One 3x3x3 block follows at the finest level. Channel dropout can be sampled at inference (Gal and Ghahramani 2016),
    which is used for comparison only. `temperature` divides the logits (Guo et al. 2017).
    """

    temperature: Tensor

    def __init__(self, channels: Sequence[int], classes: int, *, hidden: int = 32, dropout: float = 0.1) -> None:
        super().__init__()
        self.classes = classes
        self.levels = nn.ModuleList(nn.Conv3d(width, hidden, 1) for width in channels)
        self.mix = nn.ModuleList(
            nn.Sequential(nn.LeakyReLU(), nn.Conv3d(hidden, hidden, 1)) for _ in range(len(channels) - 1)
        )
        self.upsample = nn.Upsample(scale_factor=2)
        self.smooth = convolution(hidden, hidden)
        self.dropout = nn.Dropout3d(dropout)
        self.head = nn.Conv3d(hidden, classes, 1)
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """Pyramid, finest first -> logits (B, classes, z, y, x), class 0 is background."""
        x = self.levels[-1](pyramid[-1])
        for level in reversed(range(len(self.mix))):
            x = self.upsample(self.mix[level](x)) + self.levels[level](pyramid[level])
        logits: Tensor = self.head(self.dropout(self.smooth(x))) / self.temperature
        return logits
