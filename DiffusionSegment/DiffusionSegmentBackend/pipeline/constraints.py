"""Hard constraints: scribbled voxels, whose label is known, as a one-hot map that clamps probabilities and states."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def one_hot_scribbles(scribbles: Tensor, classes: int) -> Tensor:
    """Scribbles (z, y, x), k + 1 for label k and 0 for none, as float (classes, z, y, x), zero where there is none."""
    return F.one_hot(scribbles.long(), classes + 1).movedim(-1, 0)[1:].float()


def clamped(probabilities: Tensor, scribbles: Tensor) -> Tensor:
    """Probabilities (..., classes, z, y, x), replaced by the one-hot `scribbles` wherever these have a label."""
    dim = probabilities.ndim - 4
    scribbled = scribbles.sum(dim=dim, keepdim=True) > 0
    return torch.where(scribbled, scribbles, probabilities)
