"""A denoising network of label maps that sees scan, body coordinates, state, and a pre-segmentation that may be absent.

All are on a coarse grid (`coarse.py`). Unlike `networks/refiner.py` it adds nothing to the logarithm of the
pre-segmentation, and it has no features of a network trained on the labels of the training cases, which show the labels
themselves. Its mean logits and factors are a low-rank distribution (Monteiro et al. 2020, arXiv 2006.06015, stochastic
segmentation networks, without the diagonal).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from DiffusionSegmentBackend.networks.pointwise import PointwiseConv3d
from DiffusionSegmentBackend.networks.trunk import Trunk
from torch import Tensor, nn


@dataclass(frozen=True)
class LogitDistribution:
    """Mean logits (B, classes, z, y, x), and factors (B, rank, classes, z, y, x) or None for rank 0."""

    mean: Tensor
    factors: Tensor | None

    def drawn(self, coefficients: Tensor) -> Tensor:
        """Logits of a draw with standard normal `coefficients` (B, rank)."""
        if self.factors is None:
            return self.mean
        return self.mean + torch.einsum("br,brczyx->bczyx", coefficients.to(self.factors), self.factors)


class LabelDenoiser(nn.Module):
    """Estimates x_0 with a U-Net; every side of its input must be a multiple of `multiple`.

    Args:
        classes: Number of classes, background included.
        channels: Channels of the U-Net by level.
        rank: Rank of the distribution of the logits.
    """

    def __init__(self, classes: int, *, channels: Sequence[int] = (32, 64, 96, 128), rank: int = 0) -> None:
        super().__init__()
        self.classes, self.channels, self.rank = classes, tuple(channels), rank
        self.multiple = 2 ** (len(channels) - 1)
        self.unet = Trunk(2 * classes + 1 + 1 + 3, channels)
        self.head = PointwiseConv3d(channels[0], classes)
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
        features = self.unet(torch.cat([state, condition, image, coordinates], dim=1), log_snr)[0]
        mean = self.head(features)
        if self.factors is None:
            return LogitDistribution(mean, None)
        return LogitDistribution(mean, self.factors(features).unflatten(1, (self.rank, self.classes)))
