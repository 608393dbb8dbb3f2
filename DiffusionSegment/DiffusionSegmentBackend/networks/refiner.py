"""Refiner: the light network of every denoising step; predicts x_0 of the label map from x_t and shared features.

It answers with a correction to the pre-segmentation: untrained it returns that unchanged, so no training, however
short, has to learn the label map anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .unet import PyramidUNet, convolution

# What the logarithm of a pre-segmentation is cut off at, so that a missed organ can still be brought back.
_LEAST_PROBABILITY = 1e-3


class Refiner(nn.Module):
    """Estimates x_0: a U-Net at half resolution and a block at full, told the noise level, the marks and the features.

    `feature_channels` are those of the backbone's two finest levels. With `self_conditioning` (Chen et al. 2022, arXiv
    2208.04202) the network also sees its estimate of x_0 from the step before.
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
        state_channels = classes * (4 if self_conditioning else 3) + 3
        self.multiple = 2 ** len(channels)
        self.enter = nn.Conv3d(state_channels, channels[0], 2, stride=2)
        self.unet = PyramidUNet(channels[0] + feature_channels[1], channels, timed=True)
        self.leave = nn.Conv3d(channels[0], 16, 1)
        self.fuse = convolution(16 + feature_channels[0] + 2 * classes, 24)
        self.head = nn.Conv3d(24, classes, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

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
        pre: Tensor,
        marks: Tensor,
        log_snr: Tensor,
        previous: Tensor | None = None,
    ) -> Tensor:
        """Logits of x_0 (B, classes, z, y, x).

        `x_t` (B, classes, z, y, x) is the noisy label map coded -1..1; `pre` the pre-segmentation, probabilities of the
        same shape; `marks` a reader's marks of the same shape, 1 for the label that a voxel was given, 0 elsewhere;
        `log_snr` (B,); `previous` the estimate of x_0 coded -1..1 from the step before, zeros if there was none; read
        by a self-conditioning network alone.
        """
        shown = 2 * pre - 1
        known = [x_t, shown, marks, coordinates]
        if self.self_conditioning:
            known.append(torch.zeros_like(x_t) if previous is None else previous)
        state = self.enter(torch.cat(known, dim=1))
        half = self.unet(torch.cat([state, pyramid[1]], dim=1), log_snr)[0]
        full = F.interpolate(self.leave(half), scale_factor=2.0)
        correction = self.head(self.fuse(torch.cat([full, pyramid[0], x_t, shown], dim=1)))
        return pre.float().clamp(min=_LEAST_PROBABILITY).log() + correction


def no_marks(x_t: Tensor) -> Tensor:
    """Marks (B, classes, z, y, x) of a reader who marked nothing."""
    return torch.zeros_like(x_t)
