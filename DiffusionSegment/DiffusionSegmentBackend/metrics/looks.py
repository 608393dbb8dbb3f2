"""Gross errors of a segmentation, and how much of them a reader sees who looks at a list of positions.

A gross error is a connected piece of wrong voxels that survives an opening by a ball: errors of the boundary within the
radius of the ball are not gross. A look is a ball around a position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..imaging.balls import Spacing, Voxel, ball_around, largest_balls, opened

OPENING_MM = 3.0
MIN_GROSS_ERROR_ML = 0.3
LOOK_RADIUS_MM = 20.0
# A look holds a gross error if at least this much of one lies inside it.
_MIN_SEEN_ML = 0.1


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What a list of looks shows.

    Attributes:
        gross_ml: volume of all gross errors in mL.
        seen_ml: volume of gross errors inside the union of the first n looks, for every n from 1.
        best_ml: the same for looks chosen greedily by the truth.
        holds: for every look, whether it holds a gross error.
    """

    gross_ml: float
    seen_ml: tuple[float, ...]
    best_ml: tuple[float, ...]
    holds: tuple[bool, ...]

    def recall(self, count: int) -> float:
        """Volume seen in the first `count` looks as a share of what as many looks could show; NaN without errors."""
        if not self.best_ml or self.best_ml[-1] == 0:
            return float("nan")
        seen = self.seen_ml[min(count, len(self.seen_ml)) - 1] if self.seen_ml else 0.0
        return seen / self.best_ml[min(count, len(self.best_ml)) - 1]


def gross_errors(
    labels: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    *,
    spacing: Spacing,
    radius_mm: float = OPENING_MM,
    min_ml: float = MIN_GROSS_ERROR_ML,
) -> NDArray[np.int32]:
    """The number of its gross error at every voxel (z, y, x), 0 elsewhere; `spacing` in mm along z, y, x."""
    pieces, count = ndimage.label(opened(labels != truth, radius_mm=radius_mm, spacing=spacing))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1) * _voxel_ml(spacing)
    large = sizes >= min_ml
    large[0] = False
    numbers = np.where(large, np.cumsum(large), 0).astype(np.int32)
    result: NDArray[np.int32] = numbers[pieces]
    return result


def look(
    errors: NDArray[np.int32],
    positions: Sequence[Voxel],
    *,
    spacing: Spacing,
    radius_mm: float = LOOK_RADIUS_MM,
    best_of: int = 10,
) -> Looks:
    """What looks at `positions` (z, y, x), the first first, show of the gross errors (z, y, x).

    Args:
        errors: the result of `gross_errors`.
        positions: voxels inside the array.
        spacing: mm along z, y, x.
        radius_mm: radius of a look.
        best_of: number of looks of the best list, which is chosen greedily by the truth.
    """
    gross, voxel_ml = errors > 0, _voxel_ml(spacing)
    seen = np.zeros_like(gross)
    seen_ml, holds = [], []
    for position in positions:
        ball = ball_around(position, gross.shape, radius_mm=radius_mm, spacing=spacing)
        holds.append(bool(np.count_nonzero(gross[ball.box] & ball.inside) * voxel_ml >= _MIN_SEEN_ML))
        seen[ball.box] |= ball.inside
        seen_ml.append(float(np.count_nonzero(gross & seen)) * voxel_ml)
    return Looks(
        gross_ml=float(np.count_nonzero(gross)) * voxel_ml,
        seen_ml=tuple(seen_ml),
        best_ml=_best(gross, count=best_of, radius_mm=radius_mm, spacing=spacing),
        holds=tuple(holds),
    )


def _best(gross: NDArray[np.bool_], *, count: int, radius_mm: float, spacing: Spacing) -> tuple[float, ...]:
    """mL seen by the first n of `count` looks, each of which shows the most that is not yet seen."""
    balls = largest_balls(gross.astype(np.float32), count=count, min_sum=0.5, radius_mm=radius_mm, spacing=spacing)
    seen = np.zeros_like(gross)
    seen_ml = []
    for ball in balls:
        seen[ball.box] |= ball.inside
        seen_ml.append(float(np.count_nonzero(gross & seen)) * _voxel_ml(spacing))
    return tuple(seen_ml)


def _voxel_ml(spacing: Spacing) -> float:
    return float(np.prod(spacing)) / 1000.0
