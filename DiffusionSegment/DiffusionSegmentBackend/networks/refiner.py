"""Refiner: the light network of every denoising step; predicts x_0 of the label map from x_t and shared features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .unet import PyramidUNet, convolution

CONSTRAINT_CHANNELS = 2


class Refiner(nn.Module):
    """p(x_0 | features, coordinates, x_t, constraints, log-SNR): a U-Net at half resolution, one block at full.

    `feature_channels` are those of the backbone's two finest levels. The constraint channels hold a reader's marks:
    1 where a voxel is marked, and the marked label divided by the number of classes. With `self_conditioning` (Chen et
    al. 2022, arXiv 2208.04202) the network also sees its estimate of x_0 from the step before.
    """

    def __init__(
        self,
        feature_channels: Sequence[int],
        classes: int,
        *,
        channels: Sequence[int] = (32, 48, 64),
        self_conditioning: bool = False,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.feature_channels = tuple(feature_channels)
        self.channels = tuple(channels)
        self.self_conditioning = self_conditioning
        state_channels = classes * (2 if self_conditioning else 1) + CONSTRAINT_CHANNELS + 3
        self.multiple = 2 ** len(channels)
        self.enter = nn.Conv3d(state_channels, channels[0], 2, stride=2)
        self.unet = PyramidUNet(channels[0] + feature_channels[1], channels, timed=True)
        self.leave = nn.Conv3d(channels[0], 16, 1)
        self.fuse = convolution(16 + feature_channels[0] + classes, 24)
        self.head = nn.Conv3d(24, classes, 1)

    @property
    def architecture(self) -> dict[str, object]:
        """The arguments that build this network again."""
        return {
            "feature_channels": list(self.feature_channels),
            "classes": self.classes,
            "channels": list(self.channels),
            "self_conditioning": self.self_conditioning,
        }

    def forward(
        self,
        pyramid: list[Tensor],
        coordinates: Tensor,
        x_t: Tensor,
        constraints: Tensor,
        log_snr: Tensor,
        previous: Tensor | None = None,
    ) -> Tensor:
        """Logits of x_0 (B, classes, z, y, x).

        `x_t` (B, classes, z, y, x) is the noisy label map coded -1..1; `constraints` (B, 2, z, y, x); `log_snr` (B,);
        `previous` the estimate of x_0 coded -1..1 from the step before, zeros if there was none; read by a
        self-conditioning network alone.
        """
        known = [x_t, constraints, coordinates]
        if self.self_conditioning:
            known.append(torch.zeros_like(x_t) if previous is None else previous)
        state = self.enter(torch.cat(known, dim=1))
        half = self.unet(torch.cat([state, pyramid[1]], dim=1), log_snr)[0]
        full = F.interpolate(self.leave(half), scale_factor=2.0)
        return self.head(self.fuse(torch.cat([full, pyramid[0], x_t], dim=1)))


def no_constraints(x_t: Tensor) -> Tensor:
    """Constraint channels (B, 2, z, y, x) that mark nothing."""
    return x_t.new_zeros((x_t.shape[0], CONSTRAINT_CHANNELS, *x_t.shape[2:]))
