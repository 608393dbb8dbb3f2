"""Overlap of label maps by Dice, and measures of coordinates and uncertainty against true labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from ..imaging.volume import Box, Volume, model_grid

VOX2VEC_SPACING_MM = (1.0, 1.0, 2.0)


@dataclass(frozen=True)
class LabelCounts:
    """Number of voxels of labels 1..classes-1, each (classes - 1,): predicted, true, and both at the same voxel."""

    predicted: NDArray[np.float64]
    truth: NDArray[np.float64]
    both: NDArray[np.float64]

    @property
    def dice(self) -> NDArray[np.float64]:
        """Dice (classes - 1,), 0..1; NaN for a label that is absent from the truth."""
        scores = np.full(len(self.truth), np.nan)
        np.divide(2 * self.both, self.predicted + self.truth, out=scores, where=self.truth > 0)
        return scores


def foreground_box(*maps: NDArray[np.uint8]) -> Box:
    """The bounding box (z, y, x) of the non-zero voxels of all `maps`; empty where all are 0."""
    sides = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        indices = np.flatnonzero(np.any([m.any(axis=others) for m in maps], axis=0))
        sides.append(slice(int(indices[0]), int(indices[-1]) + 1) if len(indices) else slice(0, 0))
    return sides[0], sides[1], sides[2]


def count_labels(
    predicted: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    classes: int,
    *,
    repeats: Sequence[NDArray[np.integer]] | None = None,
) -> LabelCounts:
    """Count the voxels of each label in two maps of the same shape.

    Args:
        predicted: label map.
        truth: label map of the same shape.
        classes: number of classes, background included.
        repeats: for 3D maps, a number of repetitions of each plane along z, y and x; the counts are then those of maps
            with the planes repeated (or omitted where 0), without forming these maps.
    """
    if repeats is None:
        maps = (predicted, truth, truth[predicted == truth])
        counts = np.stack([np.bincount(m.ravel(), minlength=classes)[:classes] for m in maps]).astype(np.float64)
    else:
        counts = np.zeros((3, classes))
        in_plane = np.multiply.outer(*repeats[1:]).astype(np.float64)
        for z in np.flatnonzero(repeats[0]):
            p, t = predicted[z], truth[z]
            same = p == t
            pairs = ((p.ravel(), in_plane.ravel()), (t.ravel(), in_plane.ravel()), (t[same], in_plane[same]))
            for count, (labels, weights) in zip(counts, pairs, strict=True):
                count += repeats[0][z] * np.bincount(labels, weights, minlength=classes)[:classes]
    return LabelCounts(*counts[:, 1:])


def dice_by_label(predicted: NDArray[np.uint8], truth: NDArray[np.uint8], classes: int) -> NDArray[np.float64]:
    """Dice of labels 1..classes-1; NaN for a label that is absent from the truth."""
    return count_labels(predicted, truth, classes).dice


def dice_of_vox2vec(
    predicted: NDArray[np.uint8], truth: NDArray[np.uint8], classes: int, *, index_to_lps: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Dice of labels 1..classes-1 by the protocol of vox2vec (Goncharov et al. 2023), also used by Li et al. 2025.

    Both maps are resampled to 1 x 1 x 2 mm by nearest neighbour. A label that is absent from the truth scores 1 where
    it was not predicted, else 0. Their crop to the body is omitted.
    """
    grid = model_grid(Volume(truth, index_to_lps), spacing=VOX2VEC_SPACING_MM)
    if grid.native_to_grid is None:
        # Along straight axes, nearest neighbours repeat whole planes: their number suffices, without resampled maps.
        indices = grid.nearest_indices()
        repeats = [np.bincount(i, minlength=n) for i, n in zip(indices, grid.native_shape, strict=True)]
        maps = [grid.order.apply(m) for m in (predicted, truth)]
        box = foreground_box(*maps)
        inside = [r[side] for r, side in zip(repeats, box, strict=True)]
        counts = count_labels(maps[0][box], maps[1][box], classes, repeats=inside)
    else:
        counts = count_labels(grid.nearest_to_grid(predicted), grid.nearest_to_grid(truth), classes)
    return np.where(counts.truth > 0, counts.dice, np.where(counts.predicted > 0, 0.0, 1.0))


def centroid_values(field: NDArray[np.float32], labels: NDArray[np.uint8], classes: int) -> NDArray[np.float64]:
    """Values (classes - 1, channels) of `field` (channels, z, y, x) at the centroids of labels 1..classes-1.

    NaN for an absent label.
    """
    values = np.full((classes - 1, field.shape[0]), np.nan)
    for index, box in enumerate(find_objects(labels, max_label=classes - 1)):
        if box is not None:
            voxels = np.argwhere(labels[box] == index + 1)
            corner = [side.start for side in box]
            z, y, x = np.round(voxels.mean(axis=0) + corner).astype(int)
            values[index] = field[:, z, y, x]
    return values


def errors_in_most_uncertain(uncertainty: NDArray[np.float32], wrong: NDArray[np.bool_], *, share: float) -> float:
    """Share (0..1) of the wrong voxels among the `share` (0..1) of the most uncertain voxels.

    1 without any wrong voxel. Both arrays cover the same voxels.
    """
    count = max(1, round(share * uncertainty.size))
    highest = np.argpartition(uncertainty.ravel(), -count)[-count:]
    total = np.count_nonzero(wrong)
    return float(np.count_nonzero(wrong.ravel()[highest]) / total) if total else 1.0
