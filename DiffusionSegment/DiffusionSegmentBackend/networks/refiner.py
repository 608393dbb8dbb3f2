"""Refiner: the lightweight denoising network; predicts x_0 of the label map from x_t and the backbone's features.

It predicts a correction of the pre-segmentation, which is zero at initialisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .unet import PyramidUNet, convolution

# Lower bound of the pre-segmentation before its logarithm, so that a missed organ can still be restored.
_MIN_PROBABILITY = 1e-3
# Channels upsampled from half resolution.
_LIFTED = 16


@dataclass(frozen=True)
class Shared:
    """Partial sums shared by all steps: (B, c, z/2, y/2, x/2) at half and (B, 24, z, y, x) at full resolution."""

    half: Tensor
    full: Tensor


class _EnterWeights(NamedTuple):
    """Weights of the input convolution by input: (channels, input channels, 2, 2, 2) each."""

    x_t: Tensor
    pre: Tensor
    scribbles: Tensor
    coordinates: Tensor
    previous: Tensor


class _FuseWeights(NamedTuple):
    """Weights of the full-resolution convolution by input: (24, input channels, 3, 3, 3) each."""

    lifted: Tensor
    features: Tensor
    x_t: Tensor
    pre: Tensor


class Refiner(nn.Module):
    """Estimates x_0 with a U-Net at half resolution and one block at full resolution.

    `temperature` divides the logits (Guo et al. 2017).

    Args:
        feature_channels: Channels of the backbone's two finest levels.
        classes: Number of classes, background included.
        channels: Channels of the U-Net by level.
        self_conditioning: Whether the estimate of x_0 of the previous step is an input (Chen et al. 2022, arXiv
            2208.04202).
    """

    temperature: Tensor

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
        """Keyword arguments to reconstruct this network."""
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
        scribbles: Tensor | None,
        log_snr: Tensor,
        previous: Tensor | None = None,
    ) -> Tensor:
        """Logits of x_0 (B, classes, z, y, x).

        Args:
            pyramid: The two finest feature levels of the backbone.
            coordinates: (B, 3, z, y, x), normalised.
            x_t: (B, classes, z, y, x), the noisy label map in the range -1..1.
            pre: (B, classes, z, y, x), probabilities of the pre-segmentation.
            scribbles: (B, classes, z, y, x), one-hot labels of the voxels corrected by the user, 0 elsewhere.
            log_snr: (B,).
            previous: (B, classes, z, y, x), the estimate of x_0 of the previous step in the range -1..1, zeros in the
                first step; used with `self_conditioning` only.
        """
        shared = self.shared(pyramid[0], coordinates, pre, scribbles)
        return self.step(shared, pyramid[1], x_t, pre, log_snr, previous)

    def shared(self, features: Tensor, coordinates: Tensor, pre: Tensor, scribbles: Tensor | None) -> Shared:
        """The part of the two input convolutions that does not depend on the step; `features` are the finest level.

        A convolution is linear in its input channels, so that it can be computed as a sum over groups of channels.
        """
        enter, fuse = self._enter_weights(), self._fuse_weights()
        pre_coded = (2 * pre - 1).to(features.dtype)
        inputs, weights = [pre_coded, coordinates], [enter.pre, enter.coordinates]
        if scribbles is not None:
            inputs.append(scribbles)
            weights.append(enter.scribbles)
        half = F.conv3d(torch.cat(inputs, dim=1), torch.cat(weights, dim=1), self.enter.bias, stride=2)
        full = F.conv3d(torch.cat([features, pre_coded], dim=1), torch.cat([fuse.features, fuse.pre], dim=1), padding=1)
        return Shared(half, full)

    def step(
        self,
        shared: Shared,
        half_features: Tensor,
        x_t: Tensor,
        pre: Tensor,
        log_snr: Tensor,
        previous: Tensor | None = None,
    ) -> Tensor:
        """Logits of x_0 (B, classes, z, y, x) from the result of `shared`; `half_features` are the second level."""
        half = self._half_resolution(shared, half_features, x_t, log_snr, previous)
        correction = self._full_resolution(shared, half, x_t)
        logits = pre.float().clamp(min=_MIN_PROBABILITY).log_().add_(correction)
        return logits.div_(self.temperature)

    def _half_resolution(
        self, shared: Shared, features: Tensor, x_t: Tensor, log_snr: Tensor, previous: Tensor | None
    ) -> Tensor:
        """U-Net features (B, channels[0], z/2, y/2, x/2) of the state and the backbone's features."""
        weights = self._enter_weights()
        state = shared.half + F.conv3d(x_t, weights.x_t, stride=2)
        if self.self_conditioning and previous is not None:
            state = state + F.conv3d(previous, weights.previous, stride=2)
        levels: list[Tensor] = self.unet(torch.cat([state, features], dim=1), log_snr)
        return levels[0]

    def _full_resolution(self, shared: Shared, half: Tensor, x_t: Tensor) -> Tensor:
        """Correction of the logits (B, classes, z, y, x) from the U-Net's features and the state."""
        weights = self._fuse_weights()
        lifted = F.interpolate(self.leave(half), scale_factor=2.0)
        fused = F.conv3d(torch.cat([lifted, x_t], dim=1), torch.cat([weights.lifted, weights.x_t], dim=1), padding=1)
        correction: Tensor = self.head(self.fuse.get_submodule("adn")(fused + shared.full))
        return correction

    def _enter_weights(self) -> _EnterWeights:
        c = self.classes
        sizes = [c, c, c, 3, c if self.self_conditioning else 0]
        return _EnterWeights(*torch.split(self.enter.weight, sizes, dim=1))

    def _fuse_weights(self) -> _FuseWeights:
        sizes = [_LIFTED, self.feature_channels[0], self.classes, self.classes]
        return _FuseWeights(*torch.split(self.fuse.get_parameter("conv.weight"), sizes, dim=1))
