"""Refiner: the light network of every denoising step; predicts x_0 of the label map from x_t and shared features.

It answers with a correction to the pre-segmentation: untrained it returns that unchanged, so no training, however
short, has to learn the label map anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .unet import PyramidUNet, convolution

# What the logarithm of a pre-segmentation is cut off at, so that a missed organ can still be brought back.
_LEAST_PROBABILITY = 1e-3


# Channels that come from the half resolution.
_LIFTED = 16


@dataclass(frozen=True)
class Shared:
    """What all steps over one tile share: sums (B, c, z/2, y/2, x/2) at half resolution, (B, 24, z, y, x) at full."""

    half: Tensor
    full: Tensor


class Refiner(nn.Module):
    """Estimates x_0: a U-Net at half resolution and a block at full, told the noise level, the marks and the features.

    `feature_channels` are those of the backbone's two finest levels. With `self_conditioning` (Chen et al. 2022, arXiv
    2208.04202) the network also sees its estimate of x_0 from the step before. `temperature` divides the logits (Guo
    et al. 2017).
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
        self.leave = nn.Conv3d(channels[0], _LIFTED, 1)
        self.fuse = convolution(_LIFTED + feature_channels[0] + 2 * classes, 24)
        self.head = nn.Conv3d(24, classes, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.register_buffer("temperature", torch.ones(()))

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
        marks: Tensor | None,
        log_snr: Tensor,
        previous: Tensor | None = None,
    ) -> Tensor:
        """Logits of x_0 (B, classes, z, y, x).

        `x_t` (B, classes, z, y, x) is the noisy label map coded -1..1; `pre` the pre-segmentation, probabilities of the
        same shape; `marks` a reader's marks of the same shape, 1 for the label that a voxel was given, 0 elsewhere;
        `log_snr` (B,); `previous` the estimate of x_0 coded -1..1 from the step before, zeros if there was none; read
        by a self-conditioning network alone.
        """
        shared = self.shared(pyramid[0], coordinates, pre, marks)
        return self.step(shared, pyramid[1], x_t, pre, log_snr, previous)

    def shared(self, features: Tensor, coordinates: Tensor, pre: Tensor, marks: Tensor | None) -> Shared:
        """What is the same in every step: the shares of `features` (the finest level), coordinates, `pre`, `marks`.

        A convolution is linear in its input's channels, so that it can be formed in two sums.
        """
        c, weight = self.classes, self.enter.weight
        shown = (2 * pre - 1).to(features.dtype)
        known, columns = [shown, coordinates], [weight[:, c : 2 * c], weight[:, 3 * c : 3 * c + 3]]
        if marks is not None:
            known.append(marks)
            columns.append(weight[:, 2 * c : 3 * c])
        half = F.conv3d(torch.cat(known, dim=1), torch.cat(columns, dim=1), self.enter.bias, stride=2)
        fuse = self._fusing
        columns = [fuse[:, _LIFTED : -2 * c], fuse[:, -c:]]
        return Shared(half, F.conv3d(torch.cat([features, shown], dim=1), torch.cat(columns, dim=1), padding=1))

    def step(
        self,
        shared: Shared,
        half_features: Tensor,
        x_t: Tensor,
        pre: Tensor,
        log_snr: Tensor,
        previous: Tensor | None = None,
    ) -> Tensor:
        """Logits of x_0 (B, classes, z, y, x) from what `shared` gave; `half_features` are the second finest level."""
        c = self.classes
        state = shared.half + F.conv3d(x_t, self.enter.weight[:, :c], stride=2)
        if self.self_conditioning and previous is not None:
            state = state + F.conv3d(previous, self.enter.weight[:, 3 * c + 3 :], stride=2)
        half = self.unet(torch.cat([state, half_features], dim=1), log_snr)[0]
        full = F.interpolate(self.leave(half), scale_factor=2.0)
        columns = torch.cat([self._fusing[:, :_LIFTED], self._fusing[:, -2 * c : -c]], dim=1)
        fused = F.conv3d(torch.cat([full, x_t], dim=1), columns, padding=1) + shared.full
        correction = self.head(self.fuse.get_submodule("adn")(fused))
        logits = pre.float().clamp(min=_LEAST_PROBABILITY).log_().add_(correction)
        return logits.div_(cast(Tensor, self.temperature))

    @property
    def _fusing(self) -> Tensor:
        """Weights for (the half resolution's share, the finest features, x_t, the pre-segmentation)."""
        return self.fuse.get_parameter("conv.weight")
