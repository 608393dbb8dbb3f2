"""Probe: a small non-linear head that reads classes off the backbone's features (the pre-segmentation)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .unet import convolution


class Probe(nn.Module):
    """Feature-pyramid head after vox2vec's (Goncharov et al. 2023): 1x1x1 per level, summed coarse to fine.

    One 3x3x3 block at the finest level lets neighbours agree. Channels drop out in training; sampled at inference,
    that is the uncertainty of Gal and Ghahramani 2016, here for comparison only.
    `temperature` divides the logits (Guo et al. 2017).
    """

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
        return self.head(self.dropout(self.smooth(x))) / self.temperature
