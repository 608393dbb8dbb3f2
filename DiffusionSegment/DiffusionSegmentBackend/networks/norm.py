"""The norms a network can have: over groups of channels in a whole patch, or over the channels of each voxel alone."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .group_norm import GroupNorm

GROUP, VOXEL = "group", "voxel"
NORMS = (GROUP, VOXEL)


class VoxelNorm(nn.Module):
    """Layer norm over the channels of each voxel (Ba et al. 2016, arXiv 1607.06450; in U-Nets as in ConvNeXt).

    Group norm divides by the spread of the whole patch, so that one voxel gets another answer in another tile; here it
    depends on the voxel's own channels alone.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, z, y, x) -> the same shape, type and layout."""
        norm = self.norm
        last = x.permute(0, 2, 3, 4, 1)
        weight, bias = norm.weight.to(x.dtype), norm.bias.to(x.dtype)
        return F.layer_norm(last, norm.normalized_shape, weight, bias, norm.eps).permute(0, 4, 1, 2, 3)


def norm_layer(kind: str, channels: int, *, groups: int) -> nn.Module:
    """A norm of one of `NORMS`; `groups` is an upper bound for group norm.

    Raises:
        ValueError: For another `kind`.
    """
    if kind not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, not {kind!r:.40}")
    return VoxelNorm(channels) if kind == VOXEL else GroupNorm(min(groups, channels), channels)
