"""The second-generation network: a trunk at a spacing of about 3 mm, with stem and head on a finer grid.

The spacing of the trunk is that of the grid times the stride: (1, 2, 2) for a grid of 1.5 x 1.5 x 3 mm and a trunk at
3 mm, (1, 1, 1) for equal grids. The stem is space-to-depth. The same time-conditioned trunk is used for segmentation
(of a clean image, with a small timestep as time input) and denoising (Li et al. 2025, arXiv 2501.19265).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ..diffusion.schedule import Schedule, log_snr
from .fine_path import DEFAULT_FINE_CHANNELS, FinePath, SubVoxelHead, upsampled
from .norm import GROUP
from .pointwise import PointwiseConv3d
from .space_to_depth import Stride, depth_to_space, space_to_depth
from .trunk import DEFAULT_CHANNELS, Trunk

FINE = ("none", "sub-voxels", "path")


@dataclass(frozen=True)
class Logits:
    """Logits (B, classes, ...) on the grids of model and trunk; the same tensor if the grids are the same."""

    fine: Tensor
    trunk: Tensor


class Segmenter(nn.Module):
    """Trunk with heads for classes and velocity, and a residual of the upsampled logits on the fine grid.

    `temperature` divides the logits (Guo et al. 2017).

    Args:
        classes: Number of classes, background included.
        channels: Channels of the trunk by level.
        stride: Voxels (z, y, x) of the fine grid per voxel of the trunk.
        fine: "none", "sub-voxels" (`SubVoxelHead`) or "path" (`FinePath`).
        fine_channels: Channels of the fine path.
        feature_timestep: Time input for a clean image.
        norm: One of `NORMS`.

    Raises:
        ValueError: Unknown `fine` or `norm`.
    """

    temperature: Tensor
    feature_log_snr: Tensor

    def __init__(
        self,
        classes: int,
        *,
        channels: Sequence[int] = DEFAULT_CHANNELS,
        stride: Sequence[int] = (1, 2, 2),
        fine: str = "path",
        fine_channels: int = DEFAULT_FINE_CHANNELS,
        feature_timestep: int = 10,
        norm: str = GROUP,
    ) -> None:
        super().__init__()
        p, q, r = stride
        self.classes = classes
        self.channels = tuple(channels)
        self.stride: Stride = (p, q, r)
        self.fine_kind = fine
        self.fine_channels = fine_channels
        self.feature_timestep = feature_timestep
        self.norm = norm
        self.trunk = Trunk(prod(stride) + 3, channels, norm=norm)
        self.head = PointwiseConv3d(channels[0], classes)
        self.velocity_head = PointwiseConv3d(channels[0], prod(stride))
        self.fine = self._fine_part()
        self.register_buffer("temperature", torch.ones(()))
        # A constant, which needs its value also when the network is constructed on the meta device.
        with torch.device("cpu"):
            level = log_snr(Schedule("linear").at(feature_timestep))
        self.register_buffer("feature_log_snr", level, persistent=False)

    def _fine_part(self) -> FinePath | SubVoxelHead | None:
        if self.fine_kind not in FINE:
            raise ValueError(f"fine must be one of {', '.join(FINE)}, not {self.fine_kind!r:.40}")
        if self.fine_kind == "none":
            return None
        if self.fine_kind == "sub-voxels":
            return SubVoxelHead(self.channels[0], self.classes, self.stride)
        return FinePath(self.channels[0], self.fine_channels, self.classes, self.stride, norm=self.norm)

    @property
    def architecture(self) -> dict[str, Any]:
        """Keyword arguments to reconstruct this network."""
        return {
            "classes": self.classes,
            "channels": list(self.channels),
            "stride": list(self.stride),
            "fine": self.fine_kind,
            "fine_channels": self.fine_channels,
            "feature_timestep": self.feature_timestep,
            "norm": self.norm,
        }

    @property
    def multiples(self) -> tuple[int, int, int]:
        """Downsampling (z, y, x) of the coarsest level; the sides of an image must be multiples of it."""
        z, y, x = (step * 2 ** (len(self.channels) - 1) for step in self.stride)
        return z, y, x

    def forward(self, image: Tensor, coordinates: Tensor) -> Logits:
        """Image (B, 1, Z, Y, X) in -1..1, coordinates (B, 3, z, y, x) normalised, on the trunk's grid -> logits."""
        return self.logits(image, self.features(image, coordinates))

    def features(self, image: Tensor, coordinates: Tensor) -> list[Tensor]:
        """Features of a clean image, with the feature timestep as time input."""
        return self.pyramid(image, coordinates, self.feature_log_snr.expand(len(image)))

    def pyramid(self, image: Tensor, coordinates: Tensor, log_snr: Tensor) -> list[Tensor]:
        """Features of the trunk, finest first, of an image (B, 1, Z, Y, X) with noise of log-SNR (B,)."""
        levels: list[Tensor] = self.trunk(torch.cat([space_to_depth(image, self.stride), coordinates], dim=1), log_snr)
        return levels

    def logits(self, image: Tensor, pyramid: list[Tensor]) -> Logits:
        """Logits on both grids from the image and its pyramid."""
        coarse = self.head(pyramid[0])
        fine = upsampled(coarse, self.stride)
        if self.fine is not None:
            fine = fine + self.fine(image, pyramid[0])
        if self.training:  # The temperature is 1 in training, and the division is expensive on the fine grid.
            return Logits(fine, coarse)
        return Logits(fine / self.temperature, coarse / self.temperature)

    def velocity(self, x_t: Tensor, coordinates: Tensor, log_snr: Tensor) -> Tensor:
        """x_t (B, 1, Z, Y, X), coordinates (B, 3, z, y, x) normalised, log-SNR (B,) -> velocity (B, 1, Z, Y, X)."""
        pyramid = self.pyramid(x_t, coordinates, log_snr)
        return depth_to_space(self.velocity_head(pyramid[0]), self.stride)


@torch.no_grad()
def start_from_trunk(network: Segmenter, trained: Segmenter) -> None:
    """Initialise `network` from `trained`, a network at the spacing of the trunk.

    The weights of the image in the first convolution are divided equally among the sub-voxels, so that `network` gives
    the logits of `trained` for the averaged image; similar to Net2Net (Chen et al. 2016, arXiv 1511.05641).

    Raises:
        ValueError: `trained` has another trunk, other classes, another norm, or a stride other than (1, 1, 1).
    """
    same = (network.classes, network.channels, network.norm) == (trained.classes, trained.channels, trained.norm)
    if trained.stride != (1, 1, 1) or trained.fine is not None or not same:
        raise ValueError(f"{trained.architecture} is not a trunk of {network.architecture}")
    sub_voxels = prod(network.stride)
    known = trained.state_dict()
    first = "trunk.down.0.first.conv.weight"
    image, coordinates = known[first][:, :1], known[first][:, 1:]
    known[first] = torch.cat([image.repeat(1, sub_voxels, 1, 1, 1) / sub_voxels, coordinates], dim=1)
    for name in ("velocity_head.weight", "velocity_head.bias"):
        known[name] = known[name].repeat(sub_voxels, *[1] * (known[name].ndim - 1))
    missing, unexpected = network.load_state_dict(known, strict=False)
    if unexpected or any(not name.startswith("fine.") for name in missing):
        raise ValueError(f"{unexpected or missing} do not fit")
