"""Probes without spatial context, as in vox2vec (Goncharov et al. 2023), to evaluate frozen features.

A 1x1x1 head on a nearest-upsampled pyramid is a function of the descriptor of one voxel, so it is trained on voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

HEADS = ("linear", "nonlinear")


class LinearProbe(nn.Module):
    """One linear layer on the descriptor: the linear head of vox2vec."""

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(sum(channels))
        self.head = nn.Linear(sum(channels), classes)

    def forward(self, descriptors: Tensor) -> Tensor:
        """Descriptors (N, sum of channels) -> logits (N, classes)."""
        logits: Tensor = self.head(self.norm(descriptors))
        return logits


class NonLinearProbe(nn.Module):
    """The non-linear head of vox2vec: from coarse to fine, project, add the level, one residual block of 1x1x1 layers.

    Every level has at least `min_width` channels.
    """

    def __init__(self, channels: Sequence[int], classes: int, *, min_width: int = 48) -> None:
        super().__init__()
        self.channels = tuple(channels)
        widths = [max(min_width, width) for width in channels]
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
    """Pre-activation residual block: x + two times (batch norm, ReLU, linear)."""

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
