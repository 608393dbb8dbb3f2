"""Sub-voxels of a coarse grid as channels and back: 3D pixel unshuffle and shuffle (Shi et al. 2016)."""

from __future__ import annotations

from math import prod

from torch import Tensor

Stride = tuple[int, int, int]


def space_to_depth(volume: Tensor, stride: Stride) -> Tensor:
    """(B, C, Z, Y, X) -> (B, sub-voxels * C, Z / stride[0], Y / stride[1], X / stride[2]).

    Every side must be a multiple of its stride. Sub-voxels are ordered z, y, x, each with its C channels.
    """
    if prod(stride) == 1:
        return volume
    (b, c, *sides), (p, q, r) = volume.shape, stride
    z, y, x = (n // step for n, step in zip(sides, stride, strict=True))
    split = volume.reshape(b, c, z, p, y, q, x, r).permute(0, 3, 5, 7, 1, 2, 4, 6)
    return split.reshape(b, prod(stride) * c, z, y, x)


def depth_to_space(channels: Tensor, stride: Stride) -> Tensor:
    """The inverse: (B, sub-voxels * C, z, y, x) -> (B, C, z * stride[0], y * stride[1], x * stride[2]).

    The result is channels-last in memory.
    """
    if prod(stride) == 1:
        return channels
    (b, c, z, y, x), (p, q, r) = channels.shape, stride
    split = channels.reshape(b, p, q, r, c // prod(stride), z, y, x).permute(0, 5, 1, 6, 2, 7, 3, 4)
    return split.reshape(b, z * p, y * q, x * r, c // prod(stride)).movedim(-1, 1)
