"""Cross-validation folds over named cases, stratified by slice thickness, and the criterion for an improvement.

First-generation training splits cases by their order instead (`folds`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DiffusionSegmentError, ErrorCode

# Fixed before the first comparison.
_MIN_GAIN_SHARE = 5 / 7


@dataclass(frozen=True)
class CaseFold:
    """Names of the training cases and of the held-out cases of a fold; they are disjoint."""

    number: int
    training: tuple[str, ...]
    held_out: tuple[str, ...]


def stratified_folds(slice_mm: Mapping[str, float], *, count: int) -> list[CaseFold]:
    """`count` folds of nearly equal size, numbered from 1; every case is held out once.

    Cases are sorted by slice spacing (to a tenth of a mm), then by name, and assigned to the folds in turn. The result
    does not depend on the order of `slice_mm`.

    Args:
        slice_mm: Slice spacing in mm by the name of the case.
        count: Number of folds.

    Raises:
        DiffusionSegmentError: OPTION for fewer than two folds, TRAINING_DATA for fewer cases than folds.
    """
    if count < 2:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"{count} is not a valid number of folds.", hint="Choose two or more."
        )
    if len(slice_mm) < count:
        raise DiffusionSegmentError(
            ErrorCode.TRAINING_DATA, f"{len(slice_mm)} cases cannot be split into {count} folds.", hint="Add cases."
        )
    ordered = sorted(slice_mm, key=lambda name: (round(slice_mm[name], 1), name))
    parts = [tuple(ordered[n::count]) for n in range(count)]
    return [
        CaseFold(n + 1, tuple(name for m, part in enumerate(parts) if m != n for name in part), parts[n])
        for n in range(count)
    ]


def is_gain(differences: NDArray[np.float64], *, min_mean: float) -> bool:
    """Whether a change is an improvement, from the paired differences of Dice (0..1) of the held-out cases.

    Their mean must be at least `min_mean`, and five of seven cases must improve.
    """
    enough = differences.size and differences.mean() >= min_mean
    return bool(enough and (differences > 0).mean() >= _MIN_GAIN_SHARE)
