"""Normalisation layers: group norm over a whole patch, or layer norm over the channels of each voxel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .group_norm import GroupNorm

GROUP, VOXEL = "group", "voxel"
NORMS = (GROUP, VOXEL)


class VoxelNorm(nn.Module):
    """Layer norm over the channels of each voxel (Ba et al. 2016, arXiv 1607.06450; in U-Nets as in ConvNeXt).

    Group norm depends on the statistics of the whole patch, so that a voxel gets different results in different tiles;
    this norm depends on the channels of the voxel only.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, z, y, x) -> the same shape, dtype and memory format."""
        norm = self.norm
        last = x.permute(0, 2, 3, 4, 1)
        weight, bias = norm.weight.to(x.dtype), norm.bias.to(x.dtype)
        return F.layer_norm(last, norm.normalized_shape, weight, bias, norm.eps).permute(0, 4, 1, 2, 3)


def norm_layer(kind: str, channels: int, *, groups: int) -> nn.Module:
    """A normalisation layer of `NORMS`; `groups` is the maximum number of groups.

    Raises:
        ValueError: Unknown `kind`.
    """
    if kind not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, not {kind!r:.40}")
    return VoxelNorm(channels) if kind == VOXEL else GroupNorm(min(groups, channels), channels)
