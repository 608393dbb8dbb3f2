"""Regions to review: positions at which a glance shows the most of what is probably wrong, the worst first.

A rim of uncertainty around every organ is normal. So a region is not a connected piece of uncertain voxels, which is as
wide as the organ that it surrounds, but what a reader sees around one position: the uncertain voxels inside a ball of
20 mm. Balls are chosen greedily by the volume that is expected to be wrong in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..imaging.balls import Ball, Spacing, Voxel, largest_balls
from ..imaging.volume import Grid
from ..models.manifest import ModelDescription
from ..schema.report import ReviewRegion
from .region_sentence import RegionContent, region_sentence
from .uncertainty import error_of_best

MAX_REGIONS = 10
LOOK_RADIUS_MM = 20.0
# Probability, per voxel, that its label is wrong, from which it is counted.
MIN_ERROR_PROBABILITY = 0.2
# mL expected to be wrong, from which a region is listed.
MIN_SCORE_ML = 0.1


@dataclass(frozen=True)
class ErrorMap:
    """For every voxel (z, y, x) its label, the label that competes with it, and the probability that it is wrong."""

    labels: NDArray[np.uint8]
    competing: NDArray[np.uint8]
    probability: NDArray[np.float32]


def error_map(probabilities: NDArray[np.floating[Any]], *, given_weight: float = 0.0) -> ErrorMap:
    """The two most probable labels and the probability that the first is wrong, from (classes, z, y, x).

    `given_weight` is as in `uncertainty.error_probability`. Slice by slice, because torch's indices take eight bytes
    per voxel and class.
    """
    shape = probabilities.shape[1:]
    labels, competing = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    error = np.empty(shape, np.float32)
    for z in range(shape[0]):
        best = torch.from_numpy(np.ascontiguousarray(probabilities[:, z])).float().topk(2, dim=0)
        labels[z], competing[z] = best.indices.byte().numpy()
        error[z] = error_of_best(best.values[0], given_weight=given_weight).numpy()
    return ErrorMap(labels, competing, error)


def regions_to_review(
    probabilities: NDArray[np.floating[Any]],
    grid: Grid,
    offset: tuple[int, int, int],
    description: ModelDescription,
    *,
    given_weight: float = 0.0,
) -> tuple[list[ReviewRegion], NDArray[np.uint8]]:
    """The regions to review, largest expected error first, at most 10, each at most 40 mm wide.

    Args:
        probabilities: (classes, z, y, x), beginning at voxel `offset` (z, y, x) of the grid.
        grid: the model's grid.
        offset: first voxel of the probabilities.
        description: the model, for the names of the labels.
        given_weight: weight of a segmentation that is reviewed, as in `uncertainty.error_probability`.

    Returns:
        The regions, and a map (z, y, x), uint8, with n + 1 inside region n.
    """
    errors = error_map(probabilities, given_weight=given_weight)
    x, y, z = grid.spacing
    spacing = (z, y, x)
    counted = np.where(errors.probability > MIN_ERROR_PROBABILITY, errors.probability, 0).astype(np.float32)
    balls = largest_balls(
        counted,
        count=MAX_REGIONS,
        min_sum=MIN_SCORE_ML / grid.voxel_ml,
        radius_mm=LOOK_RADIUS_MM,
        spacing=spacing,
    )
    numbers = np.zeros(counted.shape, dtype=np.uint8)
    regions: list[ReviewRegion] = []
    for ball in balls:
        inside = ball.inside & (counted[ball.box] > 0) & (numbers[ball.box] == 0)
        numbers[ball.box][inside] = len(regions) + 1
        regions.append(_region(errors, ball, inside, grid, offset, description))
    return regions, numbers


def _region(
    errors: ErrorMap,
    ball: Ball,
    inside: NDArray[np.bool_],
    grid: Grid,
    offset: tuple[int, int, int],
    description: ModelDescription,
) -> ReviewRegion:
    """The region of the voxels `inside` the box of a ball, named after the two labels with the most expected error."""
    names = ["background", *(label.name for label in description.labels)]
    probability = errors.probability[ball.box]
    first, second = _main_pair(errors.labels[ball.box][inside], errors.competing[ball.box][inside], probability[inside])
    volume_ml = np.count_nonzero(inside) * grid.voxel_ml
    score = float(probability[inside].sum()) * grid.voxel_ml
    position = _shown_voxel(inside, ball, grid)
    content = RegionContent(
        pair=(first, second), volume_ml=volume_ml, expected_wrong_ml=score, position=position, labels=errors.labels
    )
    x, y, z = grid.lps(np.array(position) + offset)
    return ReviewRegion(
        organ=names[first],
        competing_organ=names[second],
        value=first,
        competing_value=second,
        volume_ml=round(volume_ml, 2),
        score=round(score, 3),
        centroid_lps_mm=(round(float(x), 1), round(float(y), 1), round(float(z), 1)),
        sentence=region_sentence(content, grid, description),
    )


def _main_pair(
    labels: NDArray[np.uint8], competing: NDArray[np.uint8], probability: NDArray[np.float32]
) -> tuple[int, int]:
    """The pair of labels with the largest sum of error probabilities, the higher label first."""
    codes = np.maximum(labels, competing).astype(np.intp) * 256 + np.minimum(labels, competing)
    first, second = divmod(int(np.bincount(codes, weights=probability).argmax()), 256)
    return first, second


def _shown_voxel(inside: NDArray[np.bool_], ball: Ball, grid: Grid) -> Voxel:
    """The region's voxel nearest to the centre of its ball, which may itself lie outside the region."""
    x, y, z = grid.spacing
    spacing: Spacing = (z, y, x)
    start = np.array([part.start for part in ball.box])
    voxels = np.argwhere(inside) + start
    distances = (((voxels - ball.centre) * spacing) ** 2).sum(axis=1)
    k, j, i = (int(n) for n in voxels[distances.argmin()])
    return k, j, i
