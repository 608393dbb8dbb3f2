"""The second-generation network: a trunk at about 3 mm inside a stem and a head on a finer grid.

The grid's spacing divided by the stride is the trunk's: (1, 2, 2) for 1.5 x 1.5 x 3 mm around a trunk at 3 mm,
(1, 1, 1) where both are the same. The stem is space to depth, so no voxel of the fine grid is lost before the trunk's
first convolution. One time-conditioned trunk serves segmentation (a clean image, told a small timestep) and denoising
(Li et al. 2025, arXiv 2501.19265).
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
    """Logits (B, classes, ...) on the model's grid and on the trunk's; the same tensor where the grids are the same."""

    fine: Tensor
    trunk: Tensor


class Segmenter(nn.Module):
    """Trunk, heads for classes and for velocity, and what is added to the trunk's upsampled logits on the fine grid.

    `fine` is "none", "sub-voxels" (a head of the trunk's features for each sub-voxel) or "path" (convolutions of
    `fine_channels` on the fine grid). `norm` is one of `NORMS`. `temperature` divides the logits (Guo et al. 2017).

    Raises:
        ValueError: For another `fine` or `norm`.
    """

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
        # A number, not a weight: it has its value also where the weights are built without memory.
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
        """The arguments that build this network again."""
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
        """What the image's sides (z, y, x) are multiples of."""
        z, y, x = (step * 2 ** (len(self.channels) - 1) for step in self.stride)
        return z, y, x

    def forward(self, image: Tensor, coordinates: Tensor) -> Logits:
        """Image (B, 1, Z, Y, X) in -1..1, coordinates (B, 3, z, y, x) normalised, on the trunk's grid -> logits."""
        return self.logits(image, self.features(image, coordinates))

    def features(self, image: Tensor, coordinates: Tensor) -> list[Tensor]:
        """The trunk's pyramid of a clean image, told the feature timestep."""
        return self.pyramid(image, coordinates, self.feature_log_snr.expand(len(image)))  # type: ignore[operator]

    def pyramid(self, image: Tensor, coordinates: Tensor, log_snr: Tensor) -> list[Tensor]:
        """The trunk's features, finest first, of an image (B, 1, Z, Y, X) with noise of log-SNR (B,)."""
        return self.trunk(torch.cat([space_to_depth(image, self.stride), coordinates], dim=1), log_snr)

    def logits(self, image: Tensor, pyramid: list[Tensor]) -> Logits:
        """Logits on both grids from the image and its pyramid."""
        coarse = self.head(pyramid[0])
        fine = upsampled(coarse, self.stride)
        if self.fine is not None:
            fine = fine + self.fine(image, pyramid[0])
        if self.training:  # at temperature 1, and on the fine grid a division takes as long as a small convolution
            return Logits(fine, coarse)
        return Logits(fine / self.temperature, coarse / self.temperature)  # type: ignore[operator]

    def velocity(self, x_t: Tensor, coordinates: Tensor, log_snr: Tensor) -> Tensor:
        """x_t (B, 1, Z, Y, X), coordinates (B, 3, z, y, x) normalised, log-SNR (B,) -> velocity (B, 1, Z, Y, X)."""
        pyramid = self.pyramid(x_t, coordinates, log_snr)
        return depth_to_space(self.velocity_head(pyramid[0]), self.stride)


@torch.no_grad()
def start_from_trunk(network: Segmenter, trained: Segmenter) -> None:
    """Take over everything that `trained`, a network at the trunk's own spacing, has learnt.

    The stem then forms the mean of the sub-voxels, each with an equal share of the weight of `trained`, so that
    `network` gives the logits that `trained` gives for the averaged image (Net2Net, Chen et al. 2016, arXiv
    1511.05641, in spirit).

    Raises:
        ValueError: `trained` has another trunk, other classes, another norm, or a stride of its own.
    """
    same = (network.classes, network.channels, network.norm) == (trained.classes, trained.channels, trained.norm)
    if trained.stride != (1, 1, 1) or trained.fine is not None or not same:
        raise ValueError(f"{trained.architecture} is no trunk of {network.architecture}")
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
