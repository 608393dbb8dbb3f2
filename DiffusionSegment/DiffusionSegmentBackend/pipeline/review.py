"""Regions that a reader should look at first: where two classes compete, ranked by the volume expected to be wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ..imaging.volume import Grid
from ..models.manifest import ModelDescription

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
    probabilities: NDArray[np.floating], grid: Grid, offset: tuple[int, int, int], description: ModelDescription
) -> tuple[list[ReviewRegion], NDArray[np.uint8]]:
    """Worst first, at most 20, and where they are: (z, y, x), n + 1 inside region n.

    `probabilities` (classes, z, y, x) begin at voxel `offset` (z, y, x) of the grid.
    """
    names = ["background", *(label.title.lower() for label in description.labels)]
    keys = ["background", *(label.name for label in description.labels)]
    classes = probabilities.shape[0]
    doubt, pair = _contested(probabilities)
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
            wrong = f"about {100 * score / volume:.0f} % of these voxels are expected to be wrong"
            region = ReviewRegion(
                organ=keys[first],
                rival=keys[second],
                value=first,
                rival_value=second,
                volume_ml=round(volume, 2),
                score=round(score, 3),
                centroid_lps_mm=_inner_centre(inside, start, grid),
                sentence=f"{names[first].capitalize()} or {names[second]}? {volume:.1f} mL, {wrong}.",
            )
            found.append((region, box, inside))
    found = sorted(found, key=lambda item: -item[0].score)[:_MAX_REGIONS]
    places = np.zeros(doubt.shape, dtype=np.uint8)
    for number, (_, box, inside) in enumerate(found, start=1):
        places[box][inside] = number
    return [region for region, _, _ in found], places


def _contested(probabilities: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """1 - the largest probability (z, y, x), and higher label * classes + lower label of the two largest, if doubtful.

    Slice by slice, because indices take eight bytes a voxel and class.
    """
    doubt = np.empty(probabilities.shape[1:], dtype=np.float32)
    pair = np.zeros(probabilities.shape[1:], dtype=np.int32)
    for z in range(len(doubt)):
        best = torch.from_numpy(np.ascontiguousarray(probabilities[:, z])).float().topk(2, dim=0)
        doubt[z] = 1.0 - best.values[0].numpy()
        codes = best.indices.max(dim=0).values * len(probabilities) + best.indices.min(dim=0).values
        pair[z] = np.where(doubt[z] > _DOUBT, codes.numpy(), 0)
    return doubt, pair


def _inner_centre(inside: NDArray[np.bool_], start: NDArray, grid: Grid) -> tuple[float, float, float]:
    """LPS of the region's voxel nearest to its centroid: a bent region's centroid may lie outside it."""
    voxels = np.argwhere(inside)
    nearest = voxels[np.argmin(((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1))]
    x, y, z = grid.lps(nearest + start)
    return round(float(x), 1), round(float(y), 1), round(float(z), 1)
