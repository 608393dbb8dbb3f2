"""Bootstrap intervals of means and of paired differences over cases, and their tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

# With fewer pairs p is above 0.1 even if all differences have the same sign (n = 4: 2 / 2**4).
_MIN_PAIRS = 5
# Differences that are equal to this many decimals are ties: 0.3 - 0.2 and 0.2 - 0.1 differ in the last bit only.
_DECIMALS = 12


@dataclass(frozen=True)
class PairedDifference:
    """Mean of a - b over the common cases, in the unit of the values; NaN without any."""

    mean: float
    low: float
    high: float
    p: float | None
    n: int


def bootstrap_interval(
    values: Sequence[float | None] | NDArray[np.float64], *, level: float = 0.95, rounds: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values`, one per case.

    None and NaN are omitted. Without any case both bounds are NaN; with one, they are its value.

    Raises:
        ValueError: `level` outside 0..1, `rounds` below 1, an infinite value, or more than one axis.
    """
    if not 0 < level < 1 or rounds < 1:
        raise ValueError(f"A bootstrap needs a level between 0 and 1 and rounds above 0, not {level} and {rounds}.")
    cases = _numbers(values)
    cases = cases[~np.isnan(cases)]
    if not cases.size:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(0, cases.size, size=(rounds, cases.size))
    low, high = np.quantile(cases[drawn].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_difference(
    a: Sequence[float | None] | NDArray[np.float64],
    b: Sequence[float | None] | NDArray[np.float64],
    *,
    level: float = 0.95,
    rounds: int = 2000,
    seed: int = 0,
) -> PairedDifference:
    """a - b, where a[i] and b[i] are one case's values: mean, bootstrap interval and Wilcoxon's signed-rank p.

    Pairs with None or NaN are omitted. p (two-sided) is None with fewer than five pairs, or if no pair differs.

    Raises:
        ValueError: `a` and `b` differ in length, or as for `bootstrap_interval`.
    """
    first, second = _numbers(a), _numbers(b)
    if first.shape != second.shape:
        raise ValueError(f"Pairs need as many values on both sides, not {first.size} and {second.size}.")
    differences = np.round(first - second, _DECIMALS)
    differences = differences[~np.isnan(differences)]
    low, high = bootstrap_interval(differences, level=level, rounds=rounds, seed=seed)
    mean = float(differences.mean()) if differences.size else float("nan")
    tested = differences.size >= _MIN_PAIRS and bool(np.any(differences))
    p = float(wilcoxon(differences).pvalue) if tested else None
    return PairedDifference(mean=mean, low=low, high=high, p=p, n=int(differences.size))


def holm_adjusted(probabilities: Sequence[float | None]) -> list[float | None]:
    """p-values (0..1) adjusted for multiple testing, in their order; None stays None.

    Holm 1979, "A simple sequentially rejective multiple test procedure", which controls the family-wise error rate.
    """
    known = sorted((p, index) for index, p in enumerate(probabilities) if p is not None)
    adjusted: list[float | None] = [None] * len(probabilities)
    largest = 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[index] = largest
    return adjusted


def _numbers(values: Sequence[float | None] | NDArray[np.float64]) -> NDArray[np.float64]:
    """A 1D array of floats, None as NaN."""
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or np.isinf(numbers).any():
        raise ValueError("Values must be a plain list of finite numbers, None or NaN.")
    return numbers
