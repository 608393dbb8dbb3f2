"""Residual of the trunk's upsampled logits on a finer grid, zero at initialisation."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .norm import GROUP, norm_layer
from .pointwise import PointwiseConv3d
from .space_to_depth import Stride, depth_to_space

DEFAULT_FINE_CHANNELS = 16
_GROUPS = 4
_IN_PLANE = {"kernel_size": (1, 3, 3), "padding": (0, 1, 1)}


class FinePath(nn.Module):
    """Residual of the logits from the image on the fine grid and the upsampled features of the trunk.

    The last layer is initialised with zeros. Convolutions are in plane, where the grid is finer than that of the trunk.
    """

    def __init__(self, trunk_channels: int, channels: int, classes: int, stride: Stride, *, norm: str = GROUP) -> None:
        super().__init__()
        self.stride = stride
        self.stem = nn.Conv3d(1, channels, **_IN_PLANE)  # type: ignore[arg-type]
        self.lift = PointwiseConv3d(trunk_channels, channels)
        self.fuse = nn.Conv3d(channels, channels, bias=False, **_IN_PLANE)  # type: ignore[arg-type]
        self.norm = norm_layer(norm, channels, groups=_GROUPS)
        self.head = PointwiseConv3d(channels, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor, features: Tensor) -> Tensor:
        """Image (B, 1, Z, Y, X) in -1..1, trunk features (B, C, z, y, x) -> (B, classes, Z, Y, X)."""
        lifted = upsampled(self.lift(features), self.stride)
        # A convolution of one channel loses the memory format, and mixed formats are slow in the layers that follow.
        stem = self.stem(image)
        layout = torch.channels_last_3d if lifted.is_contiguous(memory_format=torch.channels_last_3d) else None
        stem = stem if layout is None else stem.contiguous(memory_format=layout)
        h = F.leaky_relu(stem + lifted, 0.01, inplace=True)
        h = F.leaky_relu(self.norm(self.fuse(h)), 0.01, inplace=True)
        residual: Tensor = self.head(h)
        return residual


class SubVoxelHead(nn.Module):
    """Residual of the logits of each sub-voxel (Shi et al. 2016), computed on the grid of the trunk."""

    def __init__(self, trunk_channels: int, classes: int, stride: Stride) -> None:
        super().__init__()
        self.stride = stride
        self.head = PointwiseConv3d(trunk_channels, classes * prod(stride))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor, features: Tensor) -> Tensor:
        """Trunk features (B, C, z, y, x) -> (B, classes, Z, Y, X); the image is not used."""
        return depth_to_space(self.head(features), self.stride)


def upsampled(x: Tensor, stride: Stride) -> Tensor:
    """Trilinear upsampling of (B, C, z, y, x) by `stride`, with aligned voxel edges."""
    if stride == (1, 1, 1):
        return x
    scale = tuple(float(s) for s in stride)
    return F.interpolate(x, scale_factor=scale, mode="trilinear", align_corners=False)
