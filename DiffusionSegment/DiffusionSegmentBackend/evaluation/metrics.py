"""Measures of a label map and of its uncertainty against the truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..volume import Volume, model_grid

VOX2VEC_SPACING_MM = (1.0, 1.0, 2.0)


def dice_by_label(predicted: NDArray[np.uint8], truth: NDArray[np.uint8], classes: int) -> NDArray[np.float64]:
    """Dice of labels 1..classes-1; NaN for a label that the truth does not show."""
    counts = [
        np.bincount(v.ravel(), minlength=classes)[1:classes].astype(float)
        for v in (predicted, truth, truth[predicted == truth])
    ]
    with np.errstate(invalid="ignore"):
        return np.where(counts[1] > 0, 2 * counts[2] / (counts[0] + counts[1]), np.nan)


def dice_of_vox2vec(
    predicted: NDArray[np.uint8], truth: NDArray[np.uint8], classes: int, *, index_to_lps: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Dice of labels 1..classes-1 as in vox2vec (Goncharov et al. 2023), whose protocol Li et al. 2025 share.

    Both maps are read at 1 x 1 x 2 mm by nearest voxel; a label that is absent scores 1 where none was predicted,
    else 0. (Their crop to the body and their removal of what lies outside it are left out.)
    """
    grid = model_grid(Volume(truth, index_to_lps), spacing=VOX2VEC_SPACING_MM)
    read, known = grid.nearest_to_grid(predicted), grid.nearest_to_grid(truth)
    scores = dice_by_label(read, known, classes)
    found = np.bincount(read.ravel(), minlength=classes)[1:classes] > 0
    return np.where(np.isnan(scores), np.where(found, 0.0, 1.0), scores)


def centroid_values(field: NDArray[np.float32], labels: NDArray[np.uint8], classes: int) -> NDArray[np.float64]:
    """Values of `field` (channels, z, y, x) at the centroids of labels 1..classes-1, NaN for one that is absent."""
    values = np.full((classes - 1, field.shape[0]), np.nan)
    for value in range(1, classes):
        voxels = np.argwhere(labels == value)
        if len(voxels):
            z, y, x = np.round(voxels.mean(axis=0)).astype(int)
            values[value - 1] = field[:, z, y, x]
    return values


def errors_in_most_uncertain(uncertainty: NDArray[np.float32], wrong: NDArray[np.bool_], *, share: float) -> float:
    """Share of the wrong voxels that lie among the `share` most uncertain voxels; all arrays cover the same voxels."""
    count = max(1, round(share * uncertainty.size))
    most = np.argpartition(uncertainty.ravel(), -count)[-count:]
    total = np.count_nonzero(wrong)
    return float(np.count_nonzero(wrong.ravel()[most]) / total) if total else 1.0
