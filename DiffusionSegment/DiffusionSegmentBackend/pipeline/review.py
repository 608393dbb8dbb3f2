"""Regions that a reader should look at first: where two classes compete, ranked by the volume expected to be wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..volume import Grid
from .description import ModelDescription

_DOUBT = 0.2
_MIN_ML = 0.1
_MAX_REGIONS = 20


@dataclass(frozen=True)
class ReviewRegion:
    """One connected region of doubt between two labels, 0 the background.

    `score`: mL expected to be wrong; `centroid_lps_mm` lies inside it.
    """

    organ: str
    rival: str
    value: int
    rival_value: int
    centroid_lps_mm: tuple[float, float, float]
    volume_ml: float
    score: float
    sentence: str


def regions_to_review(
    probabilities: NDArray[np.float32], grid: Grid, offset: tuple[int, int, int], description: ModelDescription
) -> tuple[list[ReviewRegion], NDArray[np.uint8]]:
    """Worst first, at most 20, and where they are: (z, y, x), n + 1 inside region n.

    `probabilities` (classes, z, y, x) begin at voxel `offset` (z, y, x) of the grid.
    """
    names = ["background", *(label.title.lower() for label in description.labels)]
    keys = ["background", *(label.name for label in description.labels)]
    classes = probabilities.shape[0]
    top = np.argpartition(probabilities, classes - 2, axis=0)[-2:]
    doubt = 1.0 - probabilities.max(axis=0)
    pair = np.where(doubt > _DOUBT, top.max(axis=0) * classes + top.min(axis=0), 0)
    voxel_ml = float(np.prod(grid.spacing)) / 1000.0
    found: list[tuple[ReviewRegion, tuple[slice, ...], NDArray[np.bool_]]] = []
    for code in np.unique(pair[pair > 0]):
        components, _ = ndimage.label(pair == code)
        for index, box in enumerate(ndimage.find_objects(components), start=1):
            inside = components[box] == index
            volume = np.count_nonzero(inside) * voxel_ml
            if volume < _MIN_ML:
                continue
            score = float(doubt[box][inside].sum()) * voxel_ml
            start = np.array([s.start for s in box]) + np.array(offset)
            first, second = divmod(int(code), classes)
            share = round(100 * score / volume)
            region = ReviewRegion(
                organ=keys[first],
                rival=keys[second],
                value=first,
                rival_value=second,
                volume_ml=round(volume, 2),
                score=round(score, 3),
                centroid_lps_mm=_inner_centre(inside, start, grid),
                sentence=f"{names[first].capitalize()} or {names[second]}? {volume:.1f} mL, {share} % likely wrong.",
            )
            found.append((region, box, inside))
    found = sorted(found, key=lambda item: -item[0].score)[:_MAX_REGIONS]
    places = np.zeros(doubt.shape, dtype=np.uint8)
    for number, (_, box, inside) in enumerate(found, start=1):
        places[box][inside] = number
    return [region for region, _, _ in found], places


def _inner_centre(inside: NDArray[np.bool_], start: NDArray, grid: Grid) -> tuple[float, float, float]:
    """LPS of the region's voxel nearest to its centroid: a bent region's centroid may lie outside it."""
    voxels = np.argwhere(inside)
    nearest = voxels[np.argmin(((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1))]
    x, y, z = grid.lps(nearest + start)
    return round(float(x), 1), round(float(y), 1), round(float(z), 1)
