"""Hard constraints: voxels whose label is given, as a one-hot map that probabilities and states are set to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def one_hot_marks(marks: Tensor, classes: int) -> Tensor:
    """Marks (z, y, x), 0 not marked and k + 1 marked as k -> float (classes, z, y, x), all zero where unmarked."""
    return F.one_hot(marks.long(), classes + 1).movedim(-1, 0)[1:].float()


def clamped(probabilities: Tensor, marks: Tensor) -> Tensor:
    """Probabilities (..., classes, z, y, x) that are certain of the marked label wherever `marks` has one."""
    dim = probabilities.ndim - 4
    marked = marks.sum(dim=dim, keepdim=True) > 0
    return torch.where(marked, marks, probabilities)
