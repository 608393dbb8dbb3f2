"""Folds over labelled scans for cross-validation, alike in slice thickness, and when a change is kept by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DiffusionSegmentError, ErrorCode

# Written down before anything was compared.
_MIN_SHARE_OF_GAINS = 5 / 7


@dataclass(frozen=True)
class CaseFold:
    """Names of the cases that a network trains on and of those it is scored on; no case is in both."""

    number: int
    training: tuple[str, ...]
    held_out: tuple[str, ...]


def stratified_folds(slice_mm: Mapping[str, float], *, count: int) -> list[CaseFold]:
    """`count` folds of nearly equal size, numbered from 1; every case is held out once.

    `slice_mm` gives each case's distance of slices in mm. Cases are sorted by it (to a tenth of a mm), then by name,
    and dealt out in turn, so that each fold holds out its share of thick and of thin slices. The folds follow from the
    scans alone, whatever order they are given in.

    Raises:
        DiffusionSegmentError: OPTION for fewer than two folds, TRAINING_DATA for fewer cases than folds.
    """
    if count < 2:
        raise DiffusionSegmentError(ErrorCode.OPTION, f"{count} is no number of folds.", hint="Choose two or more.")
    if len(slice_mm) < count:
        raise DiffusionSegmentError(
            ErrorCode.TRAINING_DATA, f"{len(slice_mm)} cases cannot be split into {count} folds.", hint="Add cases."
        )
    ordered = sorted(slice_mm, key=lambda name: (round(slice_mm[name], 1), name))
    dealt = [tuple(ordered[n::count]) for n in range(count)]
    return [
        CaseFold(n + 1, tuple(name for m, part in enumerate(dealt) if m != n for name in part), dealt[n])
        for n in range(count)
    ]


def is_gain(differences: NDArray[np.float64], *, min_mean: float) -> bool:
    """Whether a change is kept, from the paired difference of Dice (0..1) of each held-out case.

    Their mean must be `min_mean` or more, and five of seven cases must gain.
    """
    enough = differences.size and differences.mean() >= min_mean
    return bool(enough and (differences > 0).mean() >= _MIN_SHARE_OF_GAINS)
