"""Probes without spatial context, as in vox2vec (Goncharov et al. 2023): what frozen features know voxel by voxel.

A 1x1x1 head on a nearest-upsampled pyramid is a function of one voxel's descriptor, so it is trained on voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

HEADS = ("linear", "nonlinear")


class LinearProbe(nn.Module):
    """One linear layer on the descriptor: vox2vec's linear head, the sum over levels of 1x1x1 convolutions."""

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(sum(channels))
        self.head = nn.Linear(sum(channels), classes)

    def forward(self, descriptors: Tensor) -> Tensor:
        """Descriptors (N, sum of channels) -> logits (N, classes)."""
        logits: Tensor = self.head(self.norm(descriptors))
        return logits


class NonLinearProbe(nn.Module):
    """vox2vec's non-linear head: from coarse to fine, project, add the level, one residual block of 1x1x1 layers.

    No level is narrower than `least`, so that raw values alone have room to be combined.
    """

    def __init__(self, channels: Sequence[int], classes: int, *, least: int = 48) -> None:
        super().__init__()
        self.channels = tuple(channels)
        widths = [max(least, width) for width in channels]
        self.norm = nn.BatchNorm1d(sum(channels))
        self.enter = nn.Linear(channels[-1], widths[-1])
        self.bottom = _Residual(widths[-1])
        levels = range(len(channels) - 1)
        self.project = nn.ModuleList(nn.Linear(widths[n + 1], widths[n]) for n in levels)
        self.skip = nn.ModuleList(nn.Linear(channels[n], widths[n]) for n in levels)
        self.blocks = nn.ModuleList(_Residual(widths[n]) for n in levels)
        self.head = nn.Linear(widths[0], classes)

    def forward(self, descriptors: Tensor) -> Tensor:
        """Descriptors (N, sum of channels), finest level first -> logits (N, classes)."""
        levels = self.norm(descriptors).split(self.channels, dim=1)
        x = self.bottom(self.enter(levels[-1]))
        for n in reversed(range(len(self.project))):
            x = self.blocks[n](self.project[n](x) + self.skip[n](levels[n]))
        logits: Tensor = self.head(x)
        return logits


class _Residual(nn.Module):
    """Pre-activation: x + two times (batch norm, ReLU, linear)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width)]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.body(x)
        return torch.add(x, changed)


def pointwise_probe(head: str, channels: Sequence[int], classes: int) -> LinearProbe | NonLinearProbe:
    """The probe named "linear" or "nonlinear"."""
    return LinearProbe(channels, classes) if head == "linear" else NonLinearProbe(channels, classes)
