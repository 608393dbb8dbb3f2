"""Regions to review: connected regions of uncertainty between two classes, ranked by the expected volume of errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ..imaging.volume import Grid
from ..models.manifest import ModelDescription
from ..schema.report import ReviewRegion
from .uncertainty import error_of_best

# Minimum probability, per voxel, that the label is wrong.
_MIN_UNCERTAINTY = 0.2
_MIN_ML = 0.1
_MAX_REGIONS = 20


def regions_to_review(
    probabilities: NDArray[np.floating[Any]],
    grid: Grid,
    offset: tuple[int, int, int],
    description: ModelDescription,
    *,
    given_weight: float = 0.0,
) -> tuple[list[ReviewRegion], NDArray[np.uint8]]:
    """The regions to review, largest score first, at most 20.

    Args:
        probabilities: (classes, z, y, x), beginning at voxel `offset` (z, y, x) of the grid.
        grid: the model's grid.
        offset: first voxel of the probabilities.
        description: the model, for the names of the labels.
        given_weight: weight of a segmentation that is reviewed, as in `error_probability`.

    Returns:
        The regions, and a map (z, y, x), uint8, with n + 1 inside region n.
    """
    classes = probabilities.shape[0]
    uncertainty, pair = _uncertain_pairs(probabilities, given_weight)
    voxel_ml = float(np.prod(grid.spacing)) / 1000.0
    candidates: list[tuple[ReviewRegion, tuple[slice, ...], NDArray[np.bool_]]] = []
    for code in np.unique(pair[pair > 0]):
        components, _ = ndimage.label(pair == code)
        for index, box in enumerate(ndimage.find_objects(components), start=1):
            inside = components[box] == index
            volume = np.count_nonzero(inside) * voxel_ml
            if volume < _MIN_ML:
                continue
            score = float(uncertainty[box][inside].sum()) * voxel_ml
            start = np.array([s.start for s in box]) + np.array(offset)
            centre = _inner_centre(inside, start, grid)
            candidates.append((_region(divmod(int(code), classes), volume, score, centre, description), box, inside))
    candidates = sorted(candidates, key=lambda item: -item[0].score)[:_MAX_REGIONS]
    numbers = np.zeros(uncertainty.shape, dtype=np.uint8)
    for number, (_, box, inside) in enumerate(candidates, start=1):
        numbers[box][inside] = number
    return [region for region, _, _ in candidates], numbers


def _region(
    pair: tuple[int, int],
    volume_ml: float,
    score: float,
    centre: tuple[float, float, float],
    description: ModelDescription,
) -> ReviewRegion:
    """A region between two label values, with its description in words."""
    titles = ["background", *(label.title.lower() for label in description.labels)]
    names = ["background", *(label.name for label in description.labels)]
    first, second = pair
    wrong = f"about {100 * score / volume_ml:.0f} % of these voxels are expected to be wrong"
    return ReviewRegion(
        organ=names[first],
        competing_organ=names[second],
        value=first,
        competing_value=second,
        volume_ml=round(volume_ml, 2),
        score=round(score, 3),
        centroid_lps_mm=centre,
        sentence=f"{titles[first].capitalize()} or {titles[second]}? {volume_ml:.1f} mL, {wrong}.",
    )


def _uncertain_pairs(
    probabilities: NDArray[np.floating[Any]], given_weight: float
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The error probability (z, y, x), and the pair of the two most probable labels where that is large.

    The pair is coded as higher label * classes + lower label, 0 elsewhere. Slice by slice, because torch's indices take
    eight bytes per voxel and class.
    """
    uncertainty = np.empty(probabilities.shape[1:], dtype=np.float32)
    pair = np.zeros(probabilities.shape[1:], dtype=np.int32)
    for z in range(len(uncertainty)):
        best = torch.from_numpy(np.ascontiguousarray(probabilities[:, z])).float().topk(2, dim=0)
        uncertainty[z] = error_of_best(best.values[0], given_weight=given_weight).numpy()
        codes = best.indices.max(dim=0).values * len(probabilities) + best.indices.min(dim=0).values
        pair[z] = np.where(uncertainty[z] > _MIN_UNCERTAINTY, codes.numpy(), 0)
    return uncertainty, pair


def _inner_centre(inside: NDArray[np.bool_], start: NDArray[np.integer[Any]], grid: Grid) -> tuple[float, float, float]:
    """LPS mm of the region's voxel nearest to its centroid, which may itself lie outside the region."""
    voxels = np.argwhere(inside)
    nearest = voxels[np.argmin(((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1))]
    x, y, z = grid.lps(nearest + start)
    return round(float(x), 1), round(float(y), 1), round(float(z), 1)
