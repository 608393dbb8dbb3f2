"""Diversity of samples and its agreement with the error: spread and skill, volume scores, best of K.

Samples are label maps (z, y, x) of one shape. A measure of an organ is NaN where the truth lacks the organ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ..imaging.balls import Spacing
from ..imaging.signed_distance import signed_distance

_BISECTIONS = 12


@dataclass(frozen=True)
class SpreadSkill:
    """Mean distances 1 - Dice of organs 1..classes-1, each (classes - 1,), 0..1.

    Attributes:
        spread: between two samples, E[1 - Dice(s_i, s_j)], i < j.
        skill: between a sample and the truth, E[1 - Dice(s_i, y)].
    """

    spread: NDArray[np.float64]
    skill: NDArray[np.float64]

    @property
    def ratio(self) -> NDArray[np.float64]:
        """Spread over skill: 1 if the truth is exchangeable with the samples, 0 if all samples are equal.

        Fortin et al. 2014, "Why should ensemble spread match the RMSE of the ensemble mean?", with 1 - Dice as the
        distance. NaN where all samples equal the truth.
        """
        result = np.full(self.skill.shape, np.nan)
        np.divide(self.spread, self.skill, out=result, where=self.skill > 0)
        return result


def label_distances(first: NDArray[np.uint8], second: NDArray[np.uint8], classes: int) -> NDArray[np.float64]:
    """1 - Dice of labels 1..classes-1 between two maps, symmetric; 0 for a label that both lack."""
    counts = [np.bincount(m.ravel(), minlength=classes)[1:classes] for m in (first, second, first[first == second])]
    total = (counts[0] + counts[1]).astype(np.float64)
    dice = np.ones(classes - 1)
    np.divide(2.0 * counts[2], total, out=dice, where=total > 0)
    distances: NDArray[np.float64] = 1 - dice
    return distances


def spread_skill(samples: Sequence[NDArray[np.uint8]], truth: NDArray[np.uint8], classes: int) -> SpreadSkill:
    """Spread and skill of at least two samples.

    Raises:
        ValueError: fewer than two samples.
    """
    if len(samples) < 2:
        raise ValueError("A spread needs at least two samples.")
    spread = np.mean([label_distances(a, b, classes) for a, b in combinations(samples, 2)], axis=0)
    skill = np.mean([label_distances(s, truth, classes) for s in samples], axis=0)
    absent = np.bincount(truth.ravel(), minlength=classes)[1:classes] == 0
    return SpreadSkill(np.where(absent, np.nan, spread), np.where(absent, np.nan, skill))


def fair_crps(values: Sequence[float] | NDArray[np.floating], truth: float) -> float:
    """Fair continuous ranked probability score of K >= 2 values, in their unit; its mean does not depend on K.

    mean|x_i - y| - sum_{i<j}|x_i - x_j| / (K (K - 1)): Ferro 2014, "Fair scores for ensemble forecasts", eq. 9. It may
    be negative in a single case.

    Raises:
        ValueError: fewer than two values.
    """
    x = np.sort(np.asarray(values, np.float64))
    count = len(x)
    if count < 2:
        raise ValueError("A fair CRPS needs at least two values.")
    # In ascending order, x_(i) is added i times and subtracted (K - 1 - i) times.
    pair_sum = float(((2 * np.arange(count) - count + 1) * x).sum())
    return float(np.abs(x - truth).mean()) - pair_sum / (count * (count - 1))


def sample_range_covers(values: Sequence[float] | NDArray[np.floating], truth: float) -> bool:
    """Whether `truth` lies between the smallest and the largest of K values.

    If it is exchangeable with them, and without ties, the probability is `range_coverage(K)`.
    """
    return bool(np.min(values) <= truth <= np.max(values))


def range_coverage(count: int) -> float:
    """Probability (K - 1) / (K + 1) that the range of K values holds another value of the same distribution."""
    return (count - 1) / (count + 1)


def best_dice(samples: Sequence[NDArray[np.uint8]], truth: NDArray[np.uint8], classes: int) -> NDArray[np.float64]:
    """The best Dice of each organ among the samples (classes - 1,), chosen by the truth; NaN for an absent organ."""
    best = 1 - np.min([label_distances(s, truth, classes) for s in samples], axis=0)
    absent = np.bincount(truth.ravel(), minlength=classes)[1:classes] == 0
    return np.where(absent, np.nan, best)


def jittered_copies(
    mask: NDArray[np.bool_],
    spacing: Spacing,
    *,
    count: int,
    spread: float,
    rng: np.random.Generator,
    length_mm: float = 12.0,
) -> list[NDArray[np.bool_]]:
    """Copies of a mask whose boundary is moved by smooth random fields, with a given mean 1 - Dice of pairs.

    The control of best-of-K: the copies are as diverse as samples of that `spread`, but the image does not decide
    where. Each is the mask of (signed distance + amplitude * field) > 0 with a standard normal field of correlation
    length `length_mm`; the amplitude is found by bisection up to 40 mm, so that a larger spread is not reached.
    """
    if spread <= 0 or not mask.any():
        return [mask.copy() for _ in range(count)]
    distance = signed_distance(mask, spacing)
    fields = [_smooth_field(mask.shape, spacing, length_mm, rng) for _ in range(count)]
    low, high = 0.0, 40.0
    for _ in range(_BISECTIONS):
        amplitude = (low + high) / 2
        copies = [distance + amplitude * field > 0 for field in fields]
        low, high = (amplitude, high) if _mask_spread(copies) < spread else (low, amplitude)
    return [distance + (low + high) / 2 * field > 0 for field in fields]


def mask_dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Dice of two masks; 1 if both are empty."""
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 2 * np.count_nonzero(first & second) / total if total else 1.0


def _mask_spread(masks: Sequence[NDArray[np.bool_]]) -> float:
    return float(np.mean([1 - mask_dice(a, b) for a, b in combinations(masks, 2)]))


def _smooth_field(
    shape: tuple[int, ...], spacing: Spacing, length_mm: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """A standard normal field (z, y, x), white noise filtered by a Gaussian with a sigma of `length_mm` / 2."""
    sigma = [length_mm / 2 / step for step in spacing]
    field: NDArray[np.float64] = gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
    # Fields smaller than a few correlation lengths would otherwise differ in strength.
    return field / max(float(field.std()), 1e-12)
