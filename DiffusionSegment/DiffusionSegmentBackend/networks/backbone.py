"""Diffusion backbone: denoises a CT given body coordinates; its decoder pyramid is the voxel feature.

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
    """Time-conditioned U-Net on x_t and three body coordinates that predicts the velocity v.

    `use_coordinates` = False blanks the coordinates, in training and ever after: the ablation of the paper.
    """

    # What a voxel of the features covers of the image: one.
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
        # A number, not a weight: it has its value also where the weights are built without memory.
        with torch.device("cpu"):
            level = log_snr(Schedule("linear").at(feature_timestep))
        self.register_buffer("feature_log_snr", level, persistent=False)

    @property
    def architecture(self) -> dict[str, object]:
        """The arguments that build this network again."""
        return {
            "channels": list(self.channels),
            "feature_timestep": self.feature_timestep,
            "use_coordinates": self.use_coordinates,
        }

    def forward(self, x_t: Tensor, coordinates: Tensor, log_snr: Tensor) -> Tensor:
        """x_t (B, 1, z, y, x), coordinates (B, 3, ...) normalised, log-SNR (B,) -> velocity (B, 1, z, y, x)."""
        return self.head(self.pyramid(x_t, coordinates, log_snr)[0])

    def pyramid(self, x_t: Tensor, coordinates: Tensor, log_snr: Tensor) -> list[Tensor]:
        """The decoder's features, finest first, (B, channels[l], z / 2^l, y / 2^l, x / 2^l)."""
        known = coordinates if self.use_coordinates else torch.zeros_like(coordinates)
        return self.unet(torch.cat([x_t, known], dim=1), log_snr)

    def features(self, image: Tensor, coordinates: Tensor) -> list[Tensor]:
        """Pyramid of a clean image (B, 1, z, y, x) in -1..1, told the feature timestep."""
        level = self.feature_log_snr.expand(image.shape[0])  # type: ignore[operator]
        return self.pyramid(image, coordinates, level)

    def noisy_features(self, image: Tensor, coordinates: Tensor, *, timestep: int, noise: Tensor) -> list[Tensor]:
        """Pyramid of x_t at `timestep` of 1000, as in the paper; `noise` is standard normal of the image's shape."""
        alpha_bar = Schedule("linear").at(timestep).to(image.device).expand(image.shape[0])
        return self.pyramid(add_noise(image, noise, alpha_bar), coordinates, log_snr(alpha_bar))


def descriptors_at(pyramid: Sequence[Tensor], voxels: Tensor) -> Tensor:
    """Descriptors (N, sum of channels) of voxels (N, 3) = z, y, x of the first batch element: vox2vec's, by index."""
    parts = []
    for level, features in enumerate(pyramid):
        z, y, x = (voxels // 2**level).unbind(dim=1)
        parts.append(features[0, :, z, y, x].T)
    return torch.cat(parts, dim=1)


def fine_features(pyramid: Sequence[Tensor]) -> Tensor:
    """The two finest levels of one tile as one map (channels, z, y, x): what tells a voxel from its neighbours."""
    return torch.cat([pyramid[0][0], F.interpolate(pyramid[1].float(), scale_factor=2.0)[0].to(pyramid[0].dtype)])
