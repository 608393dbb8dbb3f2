"""Regions to review: positions at which a glance shows the most of what is probably wrong, the worst first.

A rim of uncertainty around every organ is normal. So a region is not a connected piece of uncertain voxels, which is as
wide as the organ that it surrounds, but what a reader sees around one position: the uncertain voxels inside a ball of
20 mm. Balls are chosen greedily by the volume that is expected to be wrong in them. Where the model has a calibrated
probability of gross errors, regions that probably hold none are not listed, and an organ has at most two that are not
nearly certain.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..imaging.balls import Ball, Spacing, Voxel, largest_balls
from ..imaging.volume import Grid
from ..models.manifest import ModelDescription
from ..schema.region_probability import LogisticModel
from ..schema.report import ReviewRegion
from .region_sentence import RegionContent, region_sentence
from .reviewed_error import calibrated_error
from .uncertainty import error_of_best

MAX_REGIONS = 10
# Among which the listed regions are chosen by their probability.
MAX_CANDIDATES = 30
# Regions of an organ, unless they hold a gross error with more than this probability.
MAX_PER_ORGAN, CERTAIN_PROBABILITY = 2, 0.8
LOOK_RADIUS_MM = 20.0
# Probability, per voxel, that its label is wrong, from which it is counted.
MIN_ERROR_PROBABILITY = 0.2
# mL expected to be wrong, from which a region is listed.
MIN_SCORE_ML = 0.1
# Volume of an absent organ, for the share of it that is expected to be wrong.
_MIN_ORGAN_ML = 0.1


@dataclass(frozen=True)
class ErrorMap:
    """For every voxel (z, y, x) its label, the label that competes with it, and the probability that it is wrong.

    `own_error` is the sum over all voxels of the probability that the model's own labels are wrong.
    """

    labels: NDArray[np.uint8]
    competing: NDArray[np.uint8]
    probability: NDArray[np.float32]
    own_error: float = 0.0

    def expected_wrong_ml(self, voxel_ml: float) -> float:
        """The volume that is expected to be wrong."""
        return float(self.probability.sum(dtype=np.float64)) * voxel_ml


def error_map(probabilities: NDArray[np.floating[Any]], *, given_weight: float = 0.0) -> ErrorMap:
    """The two most probable labels and the probability that the first is wrong, from (classes, z, y, x).

    `given_weight` is as in `uncertainty.error_probability`. Slice by slice, because torch's indices take eight bytes
    per voxel and class.
    """
    shape = probabilities.shape[1:]
    labels, competing = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    error, own_error = np.empty(shape, np.float32), 0.0
    for z in range(shape[0]):
        best = torch.from_numpy(np.ascontiguousarray(probabilities[:, z])).float().topk(2, dim=0)
        labels[z], competing[z] = best.indices.byte().numpy()
        first = error_of_best(best.values[0], given_weight=given_weight)
        error[z] = first.numpy()
        # The given label has its share of a reviewed ensemble beside the model's; the others have the model's alone.
        own_error += float(torch.minimum(first, 1 - best.values[1] / (1 - given_weight)).clamp(min=0).sum())
    return ErrorMap(labels, competing, error, own_error)


def expected_errors(
    probabilities: NDArray[np.floating[Any]], grid: Grid, description: ModelDescription, *, given_weight: float = 0.0
) -> ErrorMap:
    """`error_map`, calibrated for a segmentation that is reviewed where the model has a calibration for it."""
    errors, calibration = error_map(probabilities, given_weight=given_weight), description.reviewed_error
    if not given_weight or calibration is None:
        return errors
    x, y, z = grid.spacing
    probability = calibrated_error(errors.probability, errors.own_error, calibration, spacing=(z, y, x))
    return replace(errors, probability=probability)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The uncertain voxels inside a ball, which no earlier candidate has.

    Attributes:
        ball: the ball.
        inside: mask of the box of the ball.
        pair: the two label values with the most expected error, the higher first.
        volume_ml: volume of the voxels.
        expected_wrong_ml: sum of the probabilities that their labels are wrong.
        organ_ml: volume of the label `pair[0]` in the whole map.
    """

    ball: Ball
    inside: NDArray[np.bool_]
    pair: tuple[int, int]
    volume_ml: float
    expected_wrong_ml: float
    organ_ml: float

    @property
    def features(self) -> dict[str, float]:
        """The features of `schema.region_probability.REGION_FEATURES`."""
        return {
            "log_expected_wrong": math.log(self.expected_wrong_ml),
            "mean_error": self.expected_wrong_ml / self.volume_ml,
            "log_organ_share": math.log(self.expected_wrong_ml / max(self.organ_ml, _MIN_ORGAN_ML)),
        }


def review_candidates(errors: ErrorMap, *, voxel_ml: float, spacing: Spacing, count: int) -> list[Candidate]:
    """Up to `count` candidates for the list of regions, largest expected error first; `spacing` in mm along z, y, x."""
    counted = np.where(errors.probability > MIN_ERROR_PROBABILITY, errors.probability, 0).astype(np.float32)
    balls = largest_balls(
        counted, count=count, min_sum=MIN_SCORE_ML / voxel_ml, radius_mm=LOOK_RADIUS_MM, spacing=spacing
    )
    organ_ml = _label_voxels(errors.labels) * voxel_ml
    candidates = []
    for ball in balls:
        inside = ball.inside & (counted[ball.box] > 0)
        counted[ball.box][inside] = 0
        error = errors.probability[ball.box][inside]
        pair = _main_pair(errors.labels[ball.box][inside], errors.competing[ball.box][inside], error)
        candidates.append(
            Candidate(
                ball=ball,
                inside=inside,
                pair=pair,
                volume_ml=len(error) * voxel_ml,
                expected_wrong_ml=float(error.sum()) * voxel_ml,
                organ_ml=float(organ_ml[pair[0]]),
            )
        )
    return candidates


@dataclass(frozen=True)
class ReviewList:
    """The regions to review, a map (z, y, x), uint8, with n + 1 inside region n, and what is expected to be wrong."""

    regions: list[ReviewRegion]
    numbers: NDArray[np.uint8]
    expected_wrong_ml: float


def regions_to_review(
    probabilities: NDArray[np.floating[Any]],
    grid: Grid,
    offset: tuple[int, int, int],
    description: ModelDescription,
    *,
    given_weight: float = 0.0,
) -> tuple[list[ReviewRegion], NDArray[np.uint8]]:
    """The regions and their numbers in the `review_list` of the same arguments."""
    listing = review_list(probabilities, grid, offset, description, given_weight=given_weight)
    return listing.regions, listing.numbers


def review_list(
    probabilities: NDArray[np.floating[Any]],
    grid: Grid,
    offset: tuple[int, int, int],
    description: ModelDescription,
    *,
    given_weight: float = 0.0,
) -> ReviewList:
    """The regions to review, largest expected error first, at most 10, each at most 40 mm wide.

    Args:
        probabilities: (classes, z, y, x), beginning at voxel `offset` (z, y, x) of the grid.
        grid: the model's grid.
        offset: first voxel of the probabilities.
        description: the model, for the names of the labels and the calibrated probability of regions.
        given_weight: weight of a segmentation that is reviewed, as in `uncertainty.error_probability`.
    """
    errors = expected_errors(probabilities, grid, description, given_weight=given_weight)
    x, y, z = grid.spacing
    calibration = description.region_probability
    model = None if calibration is None else calibration.reviewed if given_weight else calibration.own
    count = MAX_REGIONS if model is None else MAX_CANDIDATES
    candidates = review_candidates(errors, voxel_ml=grid.voxel_ml, spacing=(z, y, x), count=count)
    numbers = np.zeros(errors.labels.shape, dtype=np.uint8)
    regions: list[ReviewRegion] = []
    for candidate, probability in listed(candidates, model):
        numbers[candidate.ball.box][candidate.inside] = len(regions) + 1
        regions.append(_region(candidate, probability, errors, grid, offset, description))
    return ReviewList(regions, numbers, errors.expected_wrong_ml(grid.voxel_ml))


def listed(candidates: Sequence[Candidate], model: LogisticModel | None) -> list[tuple[Candidate, float | None]]:
    """The first ten candidates that are listed, with the probability of a gross error, None without a model.

    With a model, those below its threshold are left out, and so is the third and any further one of an organ unless its
    probability is above 0.8. Without one all are listed: a limit per organ alone makes a list that shows less.
    """
    if model is None:
        return [(candidate, None) for candidate in candidates[:MAX_REGIONS]]
    chosen: list[tuple[Candidate, float | None]] = []
    of_organ: Counter[int] = Counter()
    for candidate in candidates:
        probability = model.probability(candidate.features)
        many = of_organ[candidate.pair[0]] >= MAX_PER_ORGAN
        if probability < model.threshold or (many and probability <= CERTAIN_PROBABILITY):
            continue
        of_organ[candidate.pair[0]] += 1
        chosen.append((candidate, probability))
    return chosen[:MAX_REGIONS]


def _region(
    candidate: Candidate,
    probability: float | None,
    errors: ErrorMap,
    grid: Grid,
    offset: tuple[int, int, int],
    description: ModelDescription,
) -> ReviewRegion:
    """The region of a candidate, named after the two labels with the most expected error."""
    names = ["background", *(label.name for label in description.labels)]
    first, second = candidate.pair
    position = _shown_voxel(candidate.inside, candidate.ball, grid)
    content = RegionContent(
        pair=candidate.pair,
        volume_ml=candidate.volume_ml,
        expected_wrong_ml=candidate.expected_wrong_ml,
        position=position,
        labels=errors.labels,
        probability=probability,
    )
    x, y, z = grid.lps(np.array(position) + offset)
    return ReviewRegion(
        organ=names[first],
        competing_organ=names[second],
        value=first,
        competing_value=second,
        volume_ml=round(candidate.volume_ml, 2),
        score=round(candidate.expected_wrong_ml, 3),
        centroid_lps_mm=(round(float(x), 1), round(float(y), 1), round(float(z), 1)),
        sentence=region_sentence(content, grid, description),
        probability=None if probability is None else round(probability, 3),
    )


def _label_voxels(labels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Number of voxels of each label value 0..255; slice by slice, because `bincount` takes eight bytes per voxel."""
    return sum((np.bincount(part.ravel(), minlength=256) for part in labels), np.zeros(256, dtype=np.intp))


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
