"""Layout of the organs: their centroids compared with their usual positions in model.json."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .manifest import ModelDescription

Point = Sequence[float] | NDArray[np.float64]

_MIN_ORGAN_ML = 1.0
_MIN_ORGANS = 4
_SCALE_RANGE = (0.75, 1.33)
_SCALE_PRIOR_MM = 15.0


def axis_parallel_fit(
    points: NDArray[np.float64], targets: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and shift, (3,) each, of the map scale * point + shift from `points` (n, 3) in mm to `targets` (n, 3).

    Least squares for each axis, with the scale within 0.75 to 1.33, and 1 for fewer than three points.
    """
    # A prior at scale 1, because organs in a line do not determine the scale across it.
    prior = len(points) * _SCALE_PRIOR_MM**2
    centred = points - points.mean(axis=0)
    scale = ((centred * (targets - targets.mean(axis=0))).sum(axis=0) + prior) / ((centred**2).sum(axis=0) + prior)
    scale = np.clip(np.where(len(points) >= 3, scale, 1.0), *_SCALE_RANGE)
    return scale, targets.mean(axis=0) - scale * points.mean(axis=0)


def organ_layout_mm(labels: Tensor, description: ModelDescription) -> float | None:
    """Mean distance in mm between organs and their usual positions, after the best axis-parallel map.

    `labels` (z, y, x) lie on the model's grid, with axes along LPS. Organs of at least 1 mL are compared. The result is
    None with fewer than four of them, or for a model without usual positions.
    """
    points, positions = [], []
    voxel_ml = float(np.prod(description.spacing_mm)) / 1000.0
    for label in description.labels:
        voxels = (labels == label.value).nonzero()
        if label.body_mm is not None and len(voxels) * voxel_ml >= _MIN_ORGAN_ML:
            points.append(voxels.double().mean(dim=0).numpy()[::-1] * np.array(description.spacing_mm))
            positions.append(label.body_mm)
    return layout_mm(points, positions) if len(points) >= _MIN_ORGANS else None


def layout_mm(points: Sequence[Point], positions: Sequence[Point]) -> float:
    """Mean distance in mm of points (x, y, z) from their usual positions after the best axis-parallel map."""
    own, usual = np.array(points, dtype=np.float64), np.array(positions, dtype=np.float64)
    scale, shift = axis_parallel_fit(own, usual)
    return float(np.linalg.norm(scale * own + shift - usual, axis=1).mean())
