"""Diffusion backbone: denoises a CT given body coordinates; its decoder pyramid is the voxel feature.

Li et al. 2025 (arXiv 2501.19265), figure 1: concat(x_t, coordinates) -> denoising network -> dense features, best near
t = 10 of 1000.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..diffusion.schedule import Schedule, log_snr
from .unet import PyramidUNet


class Backbone(nn.Module):
    """Time-conditioned U-Net on x_t and three body coordinates that predicts the velocity v."""

    def __init__(self, channels: Sequence[int] = (16, 32, 64, 128, 192), feature_timestep: int = 10) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.multiple = 2 ** (len(channels) - 1)
        self.unet = PyramidUNet(4, channels, timed=True)
        self.head = nn.Conv3d(channels[0], 1, 1)
        self.register_buffer("feature_log_snr", log_snr(Schedule("linear").at(feature_timestep)), persistent=False)

    def forward(self, x_t: Tensor, coordinates: Tensor, log_snr: Tensor) -> Tensor:
        """x_t (B, 1, z, y, x), coordinates (B, 3, ...) normalised, log-SNR (B,) -> velocity (B, 1, z, y, x)."""
        return self.head(self.unet(torch.cat([x_t, coordinates], dim=1), log_snr)[0])

    def features(self, image: Tensor, coordinates: Tensor) -> list[Tensor]:
        """Pyramid, finest first, (B, channels[l], z / 2^l, ...), of a clean image told the feature timestep."""
        level = self.feature_log_snr.expand(image.shape[0])  # type: ignore[operator]
        return self.unet(torch.cat([image, coordinates], dim=1), level)
