"""Other plausible labels of a region to review, from the probabilities of its voxels: distinct, most likely first.

Errors inside a region are correlated: a whole piece of an organ is missing, or its boundary is shifted. Candidates are
therefore the label maps after a constant shift between the logits of two labels that compete in the region, which
moves their common boundary to another level of p_a / (p_a + p_b), and the label maps of the samples. Candidates that
hardly differ count as one; the others are represented by at most four, chosen greedily so that every candidate agrees
with one of them as well as possible (facility location, Nemhauser et al. 1978).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_ALTERNATIVES = 4
# mL by which an alternative differs from the present labels, and from any other.
MIN_DIFFERENCE_ML = 0.3
# Dice, of the label that differs most, from which two label maps count as the same.
MAX_DICE = 0.95
# Added to the logit of one label of a pair and subtracted from the other's. Measured by `study alternatives`.
_SHIFTS = (-2.5, -1.2, 1.2, 2.5)
_MAX_PAIRS = 3
_MIN_PROBABILITY = 1e-4

Labels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class RegionMaps:
    """Maps of a box (z, y, x) around a region.

    Attributes:
        probabilities: (classes, z, y, x), 0..1.
        labels: the present label map (z, y, x).
        inside: mask (z, y, x) of the region's voxels.
        samples: label maps (z, y, x) of the samples.
    """

    probabilities: NDArray[np.float32]
    labels: Labels
    inside: NDArray[np.bool_]
    samples: Sequence[Labels] = ()


@dataclass(frozen=True)
class LabelHypothesis:
    """A label map (z, y, x) that equals the present one outside the region, and its probability, 0..1."""

    labels: Labels
    probability: float


def region_hypotheses(maps: RegionMaps, *, voxel_ml: float) -> list[LabelHypothesis]:
    """At most four other label maps of a region, most likely first; `voxel_ml` is the volume of a voxel.

    The likelihood of a map, relative to the present one, is exp of the mean of log p(label) - log p(present label) over
    the voxels that differ: those of one map are assumed to be right or wrong together. Probabilities are likelihoods
    divided by their sum, in which the present labels count with 1.
    """
    scored = [
        (_log_likelihood(candidate, maps), candidate)
        for candidate in _candidates(maps)
        if np.count_nonzero(candidate != maps.labels) * voxel_ml >= MIN_DIFFERENCE_ML
    ]
    scored.sort(key=lambda item: -item[0])
    distinct: list[tuple[float, Labels]] = []
    for score, candidate in scored:
        if all(_are_distinct(candidate, other, maps.inside, voxel_ml) for _, other in distinct):
            distinct.append((score, candidate))
    chosen = [distinct[n] for n in _representatives([labels for _, labels in distinct], maps)]
    likelihoods = [float(np.exp(score)) for score, _ in chosen]
    total = 1 + sum(likelihoods)
    return [
        LabelHypothesis(labels, likelihood / total) for (_, labels), likelihood in zip(chosen, likelihoods, strict=True)
    ]


def competing_pairs(maps: RegionMaps) -> list[tuple[int, int]]:
    """The pairs of labels with the largest sums of probabilities of the second label, at most three."""
    present = maps.labels[maps.inside].astype(np.intp)
    rivals = np.moveaxis(maps.probabilities, 0, -1)[maps.inside].copy()
    rows = np.arange(len(present))
    rivals[rows, present] = -1
    second = rivals.argmax(axis=1)
    codes = np.maximum(present, second) * 256 + np.minimum(present, second)
    sums = np.bincount(codes, weights=rivals[rows, second].clip(0))
    order = np.argsort(-sums, kind="stable")[:_MAX_PAIRS]
    return [divmod(int(code), 256) for code in order if sums[code] > 0]


def _candidates(maps: RegionMaps) -> Iterator[Labels]:
    logits = np.log(np.maximum(maps.probabilities, _MIN_PROBABILITY))
    for first, second in competing_pairs(maps):
        for shift in _SHIFTS:
            shifted = logits.copy()
            shifted[first] += shift
            shifted[second] -= shift
            yield np.where(maps.inside, shifted.argmax(axis=0).astype(np.uint8), maps.labels)
    for sample in maps.samples:
        yield np.where(maps.inside, sample, maps.labels)


def _log_likelihood(labels: Labels, maps: RegionMaps) -> float:
    """Mean of log p(label) - log p(present label) over the voxels that differ."""
    voxels = np.nonzero(labels != maps.labels)
    new, present = (maps.probabilities[(m[voxels], *voxels)] for m in (labels, maps.labels))
    ratio = np.log(np.maximum(new, _MIN_PROBABILITY)) - np.log(np.maximum(present, _MIN_PROBABILITY))
    return float(ratio.mean())


def _are_distinct(first: Labels, second: Labels, inside: NDArray[np.bool_], voxel_ml: float) -> bool:
    a, b = first[inside], second[inside]
    if np.count_nonzero(a != b) * voxel_ml < MIN_DIFFERENCE_ML:
        return False
    counts = [np.bincount(m, minlength=256) for m in (a, b, a[a == b])]
    total = counts[0] + counts[1]
    used = total > 0
    return bool((2 * counts[2][used] / total[used]).min() < MAX_DICE)


def _representatives(candidates: Sequence[Labels], maps: RegionMaps) -> list[int]:
    """Indices, ascending, of at most four candidates that represent all of them."""
    inside = [labels[maps.inside] for labels in candidates]
    agreement = np.array([[np.mean(a == b) for b in inside] for a in inside])
    covered = np.array([np.mean(maps.labels[maps.inside] == b) for b in inside])
    chosen: list[int] = []
    for _ in range(min(MAX_ALTERNATIVES, len(candidates))):
        gains = np.maximum(agreement, covered).sum(axis=1)
        gains[chosen] = -1
        chosen.append(int(gains.argmax()))
        covered = np.maximum(covered, agreement[chosen[-1]])
    return sorted(chosen)
