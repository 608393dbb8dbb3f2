"""Diffusion backbone: denoises a CT given body coordinates; the levels of its decoder are dense features.

Li et al. 2025 (arXiv 2501.19265), figure 1: concat(x_t, coordinates) -> denoising network -> dense features, best near
t = 10 of 1000.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..diffusion.schedule import Schedule, add_noise, log_snr
from .space_to_depth import Stride
from .unet import PyramidUNet


class Backbone(nn.Module):
    """Time-conditioned U-Net that predicts the velocity v from x_t and three body coordinates.

    With `use_coordinates` = False the coordinates are zeroed, which is the ablation of the paper.
    """

    feature_log_snr: Tensor
    # Image voxels per voxel of the finest features.
    stride: Stride = (1, 1, 1)

    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 64, 128, 192),
        feature_timestep: int = 10,
        use_coordinates: bool = True,
    ) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.feature_timestep = feature_timestep
        self.use_coordinates = use_coordinates
        self.multiple = 2 ** (len(channels) - 1)
        self.unet = PyramidUNet(4, channels, timed=True)
        self.head = nn.Conv3d(channels[0], 1, 1)
        # A constant, which needs its value also when the network is constructed on the meta device.
        with torch.device("cpu"):
            level = log_snr(Schedule("linear").at(feature_timestep))
        self.register_buffer("feature_log_snr", level, persistent=False)

    @property
    def architecture(self) -> dict[str, object]:
        """Keyword arguments to reconstruct this network."""
        return {
            "channels": list(self.channels),
            "feature_timestep": self.feature_timestep,
            "use_coordinates": self.use_coordinates,
        }

    def forward(self, x_t: Tensor, coordinates: Tensor, log_snr: Tensor) -> Tensor:
        """x_t (B, 1, z, y, x), coordinates (B, 3, ...) normalised, log-SNR (B,) -> velocity (B, 1, z, y, x)."""
        predicted: Tensor = self.head(self.pyramid(x_t, coordinates, log_snr)[0])
        return predicted

    def pyramid(self, x_t: Tensor, coordinates: Tensor, log_snr: Tensor) -> list[Tensor]:
        """Features of the decoder, finest first, (B, channels[l], z / 2^l, y / 2^l, x / 2^l)."""
        known = coordinates if self.use_coordinates else torch.zeros_like(coordinates)
        levels: list[Tensor] = self.unet(torch.cat([x_t, known], dim=1), log_snr)
        return levels

    def features(self, image: Tensor, coordinates: Tensor) -> list[Tensor]:
        """Features of a clean image (B, 1, z, y, x) in -1..1, with the feature timestep as time input."""
        return self.pyramid(image, coordinates, self.feature_log_snr.expand(image.shape[0]))

    def noisy_features(self, image: Tensor, coordinates: Tensor, *, timestep: int, noise: Tensor) -> list[Tensor]:
        """Features of x_t at `timestep` of 1000, as in the paper; `noise` is standard normal, shaped as the image."""
        alpha_bar = Schedule("linear").at(timestep).to(image.device).expand(image.shape[0])
        return self.pyramid(add_noise(image, noise, alpha_bar), coordinates, log_snr(alpha_bar))


def descriptors_at(pyramid: Sequence[Tensor], voxels: Tensor) -> Tensor:
    """vox2vec descriptors (N, sum of channels) of voxels (N, 3) = z, y, x of the first batch element."""
    parts = []
    for level, features in enumerate(pyramid):
        z, y, x = (voxels // 2**level).unbind(dim=1)
        parts.append(features[0, :, z, y, x].T)
    return torch.cat(parts, dim=1)


def fine_features(pyramid: Sequence[Tensor]) -> Tensor:
    """The two finest levels of one tile, concatenated at the finest resolution: (channels, z, y, x)."""
    return torch.cat([pyramid[0][0], F.interpolate(pyramid[1].float(), scale_factor=2.0)[0].to(pyramid[0].dtype)])
