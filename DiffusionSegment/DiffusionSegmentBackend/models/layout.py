"""Whether organs lie to each other as they should: their centroids against the places that model.json gives them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .manifest import ModelDescription

_MIN_ORGAN_ML = 1.0
_MIN_ORGANS = 4
_SCALE_RANGE = (0.75, 1.33)
_SCALE_PRIOR_MM = 15.0


def axis_parallel_fit(
    points: NDArray[np.float64], places: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and shift, (3,) each, of the map scale * point + shift of `points` (n, 3) in mm onto `places` (n, 3).

    Least squares, an axis at a time, the scale within 0.75 to 1.33, and 1 for fewer than three points.
    """
    # Organs in one line say little about the scale across it: a prior of 1 holds it there.
    prior = len(points) * _SCALE_PRIOR_MM**2
    centred = points - points.mean(axis=0)
    scale = ((centred * (places - places.mean(axis=0))).sum(axis=0) + prior) / ((centred**2).sum(axis=0) + prior)
    scale = np.clip(np.where(len(points) >= 3, scale, 1.0), *_SCALE_RANGE)
    return scale, places.mean(axis=0) - scale * points.mean(axis=0)


def organ_layout_mm(labels: Tensor, description: ModelDescription) -> float | None:
    """Mean distance in mm between organs and their usual places, after the best axis-parallel map between the two.

    `labels` (z, y, x) on the model's grid, axes along LPS. Organs of at least 1 mL count; with fewer than four, or for
    a model that does not say where its organs lie, there is no such distance.
    """
    points, places = [], []
    voxel_ml = float(np.prod(description.spacing_mm)) / 1000.0
    for label in description.labels:
        voxels = (labels == label.value).nonzero()
        if label.body_mm is not None and len(voxels) * voxel_ml >= _MIN_ORGAN_ML:
            points.append(voxels.double().mean(dim=0).numpy()[::-1] * np.array(description.spacing_mm))
            places.append(label.body_mm)
    return layout_mm(points, places) if len(points) >= _MIN_ORGANS else None


def layout_mm(points: Sequence[Sequence[float] | NDArray], places: Sequence[Sequence[float] | NDArray]) -> float:
    """Mean distance in mm of points (x, y, z) from their places after the best axis-parallel map."""
    own, usual = np.array(points, dtype=np.float64), np.array(places, dtype=np.float64)
    scale, shift = axis_parallel_fit(own, usual)
    return float(np.linalg.norm(scale * own + shift - usual, axis=1).mean())
