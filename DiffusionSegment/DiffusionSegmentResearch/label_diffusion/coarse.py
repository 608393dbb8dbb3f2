"""The coarse grid of the diffusion, and the way back from it.

Organs that are missing, swapped or leaked are as visible at 6 mm as at 3 mm, and a step costs an eighth. What is finer
than the coarse grid is kept from the pre-segmentation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Voxels of the grid of the pre-segmentation per voxel of the coarse grid, in each direction.
POOL = 2
_MIN_PROBABILITY = 1e-3


def pooled(volume: Tensor) -> Tensor:
    """The mean over the voxels of the coarse grid of (B, C, z, y, x), whose sides are multiples of `POOL`."""
    return F.avg_pool3d(volume, POOL)


def decoded(coarse: Tensor, pre: Tensor) -> Tensor:
    """Probabilities (classes, z, y, x) on the grid of the pre-segmentation from probabilities on the coarse grid.

    The change of the logarithms, coarse estimate against pooled pre-segmentation, is added to the logarithm of the
    pre-segmentation, the same for all voxels of a coarse one: interpolated, it would leave a rim of an organ that is
    taken away.

    Args:
        coarse: probabilities (classes, z / 2, y / 2, x / 2).
        pre: probabilities (classes, z, y, x).
    """
    change = _log(coarse) - _log(pooled(pre[None])[0])
    fine = F.interpolate(change[None], scale_factor=float(POOL), mode="nearest")[0]
    return (_log(pre) + fine).softmax(dim=0)


def _log(probabilities: Tensor) -> Tensor:
    return torch.log(probabilities.float().clamp(min=_MIN_PROBABILITY))
