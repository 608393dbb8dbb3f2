"""Agreement of organ surfaces within a tolerance in mm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from monai.metrics.utils import get_code_to_measure_table
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from scipy.spatial import cKDTree

ROUNDING_MM = 1e-6


@dataclass(frozen=True)
class _Surface:
    """Elements of one surface: `points` (n, 3) in mm from the volume's first voxel, `areas` (n,) in mm2."""

    points: NDArray[np.float64]
    areas: NDArray[np.float64]

    def area_near(self, other: _Surface, distance_mm: float) -> float:
        """Area in mm2 of the elements at most `distance_mm` from one of `other`."""
        # The bound lets the search stop early and gives far elements an infinite distance. It is exclusive, and points
        # on a grid of 0.7 mm, say, are only so precise, hence the nanometre.
        distances, _ = cKDTree(other.points).query(self.points, distance_upper_bound=distance_mm + ROUNDING_MM)
        return float(self.areas[np.isfinite(distances)].sum())


def surface_dice_by_label(
    predicted: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    classes: int,
    spacing: tuple[float, float, float],
    *,
    tolerance_mm: float = 2.0,
) -> NDArray[np.float64]:
    """Normalised surface Dice (0..1) of labels 1..classes-1 of two maps (z, y, x) with `spacing` (z, y, x) in mm.

    Share of the area of both surfaces that lies within `tolerance_mm` of the other one: Nikolov et al. 2018, "Deep
    learning to achieve clinically applicable segmentation of head and neck anatomy for radiotherapy". NaN for a label
    that the truth does not show, 0 for one that only the prediction lacks. The values are those of MONAI's
    `compute_surface_dice` with sub-voxel areas, without its convolution of dense volumes in floating point.
    """
    scores = np.full(classes - 1, np.nan)
    table, kernel = (t.cpu().numpy() for t in get_code_to_measure_table(spacing))
    found, expected = (find_objects(labels, max_label=classes - 1) for labels in (predicted, truth))
    for index in range(classes - 1):
        if expected[index] is None:
            continue
        if found[index] is None:
            scores[index] = 0
            continue
        ours, theirs = (
            _surface_in(labels, index + 1, boxes[index], spacing, table.astype(float), kernel.reshape(2, 2, 2))
            for labels, boxes in ((predicted, found), (truth, expected))
        )
        near = ours.area_near(theirs, tolerance_mm) + theirs.area_near(ours, tolerance_mm)
        scores[index] = near / (ours.areas.sum() + theirs.areas.sum())
    return scores


def _surface_in(
    labels: NDArray[np.uint8],
    value: int,
    box: tuple[slice, slice, slice],
    spacing: tuple[float, float, float],
    area_of_code: NDArray[np.float64],
    weights: NDArray[np.float32],
) -> _Surface:
    """Surface of label `value`, all of which lies in `box`.

    An element lies between eight voxels. Which of them show the label is its code (0..255), the sum of their `weights`
    (2, 2, 2), and marching cubes give each code its area in mm2, `area_of_code` (256,).
    """
    # The margin also closes a surface that the edge of the volume cuts.
    mask = np.pad(labels[box] == value, 1).astype(np.uint8)
    depth, height, width = (size - 1 for size in mask.shape)
    codes = np.zeros((depth, height, width), np.uint8)
    for (z, y, x), weight in np.ndenumerate(weights):
        codes |= mask[z : z + depth, y : y + height, x : x + width] * np.uint8(weight)
    elements = np.nonzero((codes != 0) & (codes != 255))
    corner = [side.start for side in box]
    return _Surface((np.stack(elements, axis=1) + corner) * np.array(spacing), area_of_code[codes[elements]])
