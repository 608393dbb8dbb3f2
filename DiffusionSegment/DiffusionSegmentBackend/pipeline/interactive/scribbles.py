"""Propagation of scribbles into the pre-segmentation.

A scribble states that its voxel has label k, and so that the label j of the model is wrong there. Within the reach of
the scribble, probability moves from j to k, by a weight that falls with the distance and rises with the similarity of
the features, minus the weight of other scribbles that confirm j. The samples of the refiner start from the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.tile_shape import Sides
from ..constraints import clamped

# In voxels of the trunk's grid, so that the reach in mm does not depend on the model's grid.
REACH_VOXELS = 12
_SIGMA_VOXELS = 5.0
_FADE_VOXELS = 4
_MIN_SIMILARITY = 0.3
_MAX_SCRIBBLES_PER_PAIR = 256
_CHUNK = 16384


@dataclass(frozen=True)
class Descriptors:
    """Descriptors of the voxels of the model's grid, for their similarity.

    Attributes:
        features: (channels, z, y, x) on the trunk's grid.
        image: the networks' input (Z, Y, X) on the model's grid, -1..1; needed where the trunk's grid is coarser.
        stride: voxels (z, y, x) of the model's grid that a voxel of the trunk's grid covers.
    """

    features: Tensor
    image: Tensor | None = None
    stride: Sides = (1, 1, 1)

    def at(self, voxels: Tensor) -> Tensor:
        """Descriptors (N, channels) of unit length of voxels (N, 3) of the model's grid."""
        z, y, x = (voxels // voxels.new_tensor(self.stride)).unbind(dim=1)
        descriptors = self.features[:, z, y, x].T.float()
        if self.image is not None:
            # Weighted like all features together, if each of them were as far from 0 as the value.
            values = self.image[tuple(voxels.unbind(dim=1))].float()[:, None] * len(self.features) ** 0.5
            descriptors = torch.cat([descriptors, values], dim=1)
        return F.normalize(descriptors, dim=1)


def spread(pre: Tensor, scribbles: Tensor, descriptors: Descriptors) -> Tensor:
    """The pre-segmentation (classes, z, y, x) after propagation of scribbles, one-hot of the same shape.

    Voxels farther than REACH_VOXELS from every scribble are unchanged. A scribble of the label that was predicted
    protects that label around it against scribbles that correct it.
    """
    voxels = scribbles.sum(dim=0).nonzero()
    if not len(voxels):
        return pre
    new, old = _labels_at(scribbles, voxels), _labels_at(pre, voxels)
    result = clamped(pre, scribbles)
    if bool((new == old).all()):
        return result
    subset = _subset_per_pair(new * pre.shape[0] + old)
    voxels, new, old = voxels[subset], new[subset], old[subset]
    targets = _within_reach(voxels[new != old], pre.shape[1:], descriptors.stride)
    z, y, x = targets.unbind(dim=1)
    targets = targets[scribbles.sum(dim=0)[z, y, x] == 0]
    for chunk in torch.split(targets, _CHUNK):
        z, y, x = chunk.unbind(dim=1)
        result[:, z, y, x] = _moved(pre[:, z, y, x], _weights(descriptors, chunk, voxels), new, old)
    return result


def _subset_per_pair(pairs: Tensor) -> Tensor:
    """Indices of scribbled voxels, evenly spaced among those with the same pair of new and old label."""
    subset = []
    for pair in torch.unique(pairs):
        indices = (pairs == pair).nonzero().flatten()
        subset.append(indices[:: max(1, len(indices) // _MAX_SCRIBBLES_PER_PAIR)])
    return torch.cat(subset)


def reach(mask: Tensor, stride: Sides = (1, 1, 1), *, voxels: int = REACH_VOXELS) -> Tensor:
    """Dilation of a mask (z, y, x) by a cube of `voxels` of the trunk's grid to each side.

    A voxel of the trunk's grid covers `stride` voxels (z, y, x) of the mask.
    """
    result = mask.float()[None, None]
    for axis in range(3):
        # One axis after the other, which is much faster for a cube of 25 voxels a side.
        side, padding = [1, 1, 1], [0, 0, 0]
        padding[axis] = voxels * stride[axis]
        side[axis] = 2 * padding[axis] + 1
        result = F.max_pool3d(result, side, stride=1, padding=padding)
    return result[0, 0] > 0


def fading(mask: Tensor, stride: Sides = (1, 1, 1)) -> Tensor:
    """Weight (z, y, x) of recomputed maps around scribbles: 1 near them, falling in steps to 0 beyond their reach."""
    radii = range(REACH_VOXELS - _FADE_VOXELS + 1, REACH_VOXELS + 1)
    return torch.stack([reach(mask, stride, voxels=radius).float() for radius in radii]).mean(dim=0)


def _labels_at(probabilities: Tensor, voxels: Tensor) -> Tensor:
    """Arg max (N,) of probabilities (classes, z, y, x) at voxels (N, 3)."""
    z, y, x = voxels.unbind(dim=1)
    return probabilities[:, z, y, x].argmax(dim=0)


def _within_reach(voxels: Tensor, shape: torch.Size, stride: Sides) -> Tensor:
    """The voxels (N, 3) of a volume within reach of any of `voxels` (M, 3)."""
    mask = torch.zeros(tuple(shape), dtype=torch.bool, device=voxels.device)
    mask[tuple(voxels.unbind(dim=1))] = True
    return reach(mask, stride).nonzero()


def _weights(descriptors: Descriptors, targets: Tensor, scribbled: Tensor) -> Tensor:
    """Weight 0..1 of each scribbled voxel (M, 3) for each target (N, 3): (N, M)."""
    steps = targets.new_tensor(descriptors.stride)
    distance = torch.cdist(targets / steps, scribbled / steps)
    proximity = torch.exp(-(distance**2) / (2 * _SIGMA_VOXELS**2)) * (distance <= REACH_VOXELS)
    cosine = descriptors.at(targets) @ descriptors.at(scribbled).T
    similarity = ((cosine - _MIN_SIMILARITY) / (1 - _MIN_SIMILARITY)).clamp(min=0)
    return proximity * similarity


def _moved(pre: Tensor, weights: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Probabilities (classes, voxels) after each corrected label has lost probability to the labels of the scribbles.

    The weight of scribbles of the corrected label is subtracted: where both sides of a surface were corrected, neither
    label spreads over the other.
    """
    result = pre.clone()
    for j in torch.unique(old[new != old]).tolist():
        labels = torch.unique(new[(old == j) & (new != j)])
        claims = torch.stack([weights[:, (old == j) & (new == k)].amax(dim=1) for k in labels])
        if bool((new == j).any()):
            claims = (claims - weights[:, new == j].amax(dim=1)).clamp(min=0)
        moved = claims / claims.sum(dim=0).clamp(min=1) * pre[j]
        result[labels] += moved
        result[j] -= moved.sum(dim=0)
    return result.clamp(min=0)
