"""Sub-voxels of a coarse grid as channels, and back: pixel unshuffle (Shi et al. 2016) in three dimensions."""

from __future__ import annotations

from math import prod

from torch import Tensor

Stride = tuple[int, int, int]


def space_to_depth(volume: Tensor, stride: Stride) -> Tensor:
    """(B, C, Z, Y, X) -> (B, C * sub-voxels, Z / stride[0], Y / stride[1], X / stride[2]).

    Every side is a multiple of its stride; the sub-voxels of a coarse voxel come in z, y, x order, fastest of the
    channels.
    """
    if prod(stride) == 1:
        return volume
    (b, c, *sides), (p, q, r) = volume.shape, stride
    z, y, x = (n // step for n, step in zip(sides, stride, strict=True))
    split = volume.reshape(b, c, z, p, y, q, x, r).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return split.reshape(b, c * prod(stride), z, y, x)


def depth_to_space(channels: Tensor, stride: Stride) -> Tensor:
    """The inverse: (B, C * sub-voxels, z, y, x) -> (B, C, z * stride[0], y * stride[1], x * stride[2])."""
    if prod(stride) == 1:
        return channels
    (b, c, z, y, x), (p, q, r) = channels.shape, stride
    split = channels.reshape(b, c // prod(stride), p, q, r, z, y, x).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return split.reshape(b, c // prod(stride), z * p, y * q, x * r)
