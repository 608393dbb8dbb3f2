"""A denoising network of label maps that sees scan, body coordinates, state, and a pre-segmentation that may be absent.

Unlike `networks/refiner.py` it adds nothing to the logarithm of the pre-segmentation, and it has no features of a
network trained on the labels of the training cases, which show the labels themselves. Its mean logits and factors are a
low-rank distribution (Monteiro et al. 2020, arXiv 2006.06015, stochastic segmentation networks, without the diagonal).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from DiffusionSegmentBackend.networks.pointwise import PointwiseConv3d
from DiffusionSegmentBackend.networks.space_to_depth import depth_to_space, space_to_depth
from DiffusionSegmentBackend.networks.trunk import Trunk
from torch import Tensor, nn

_STRIDE = (2, 2, 2)
_LIFTED = 16
_FULL_CHANNELS = 24


@dataclass(frozen=True)
class LogitDistribution:
    """Mean logits (B, classes, z, y, x), and factors (B, rank, classes, z/2, y/2, x/2) or None for rank 0."""

    mean: Tensor
    factors: Tensor | None

    def drawn(self, coefficients: Tensor) -> Tensor:
        """Logits of a draw with standard normal `coefficients` (B, rank)."""
        if self.factors is None:
            return self.mean
        deviation = torch.einsum("br,brczyx->bczyx", coefficients.to(self.factors), self.factors)
        return self.mean + F.interpolate(deviation, scale_factor=2.0, mode="trilinear", align_corners=False)


class LabelDenoiser(nn.Module):
    """Estimates x_0 with a U-Net at half resolution and a voxelwise head at full resolution.

    Args:
        classes: Number of classes, background included.
        channels: Channels of the U-Net by level.
        rank: Rank of the distribution of the logits.
    """

    def __init__(self, classes: int, *, channels: Sequence[int] = (32, 64, 96, 128), rank: int = 0) -> None:
        super().__init__()
        self.classes, self.channels, self.rank = classes, tuple(channels), rank
        self.multiple = 2 ** len(channels)
        voxelwise = 2 * classes + 1 + 1
        self.enter = PointwiseConv3d(voxelwise * prod(_STRIDE), channels[0])
        self.unet = Trunk(channels[0] + 3, channels)
        self.leave = PointwiseConv3d(channels[0], _LIFTED * prod(_STRIDE))
        self.fuse = PointwiseConv3d(_LIFTED + voxelwise, _FULL_CHANNELS)
        self.head = PointwiseConv3d(_FULL_CHANNELS, classes)
        self.factors = PointwiseConv3d(channels[0], rank * classes) if rank else None

    def forward(
        self, image: Tensor, coordinates: Tensor, pre: Tensor, given: Tensor, state: Tensor, log_snr: Tensor
    ) -> LogitDistribution:
        """The distribution of the logits of x_0.

        Args:
            image: (B, 1, z, y, x) in -1..1.
            coordinates: (B, 3, z, y, x), normalised.
            pre: (B, classes, z, y, x), probabilities of the pre-segmentation.
            given: (B,), 1 where the pre-segmentation is shown, 0 where it is replaced by zeros.
            state: (B, classes, z, y, x) with variance about 1.
            log_snr: (B,).
        """
        shown = given[:, None, None, None, None].to(pre)
        condition = torch.cat([(2 * pre - 1) * shown, shown.expand_as(image)], dim=1)
        voxelwise = torch.cat([state, condition, image], dim=1)
        coarse = F.avg_pool3d(coordinates, _STRIDE)
        entered = self.enter(space_to_depth(voxelwise, _STRIDE))
        half = self.unet(torch.cat([entered, coarse], dim=1), log_snr)[0]
        lifted = depth_to_space(self.leave(half), _STRIDE)
        mean = self.head(F.leaky_relu(self.fuse(torch.cat([lifted, voxelwise], dim=1)), 0.01))
        if self.factors is None:
            return LogitDistribution(mean, None)
        return LogitDistribution(mean, self.factors(half).unflatten(1, (self.rank, self.classes)))
