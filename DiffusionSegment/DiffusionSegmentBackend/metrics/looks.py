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
from scipy.signal import fftconvolve

OPENING_MM = 3.0
MIN_GROSS_ERROR_ML = 0.3
LOOK_RADIUS_MM = 20.0
# A look holds a gross error if at least this much of one lies inside it.
_MIN_SEEN_ML = 0.1

Spacing = tuple[float, float, float]
Voxel = tuple[int, int, int]


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


def opened(mask: NDArray[np.bool_], *, radius_mm: float, spacing: Spacing) -> NDArray[np.bool_]:
    """Morphological opening of a mask (z, y, x) by a ball; `spacing` in mm along z, y, x.

    Distances are between centres of voxels; outside the mask's box everything counts as background.
    """
    padded = np.pad(mask, 1)
    eroded = ndimage.distance_transform_edt(padded, sampling=spacing) > radius_mm
    if not eroded.any():
        return np.zeros_like(mask)
    dilated = ndimage.distance_transform_edt(~eroded, sampling=spacing) <= radius_mm
    result: NDArray[np.bool_] = (dilated & padded)[1:-1, 1:-1, 1:-1]
    return result


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
        holds.append(bool(np.count_nonzero(gross & ball) * voxel_ml >= _MIN_SEEN_ML))
        seen |= ball
        seen_ml.append(float(np.count_nonzero(gross & seen)) * voxel_ml)
    return Looks(
        gross_ml=float(np.count_nonzero(gross)) * voxel_ml,
        seen_ml=tuple(seen_ml),
        best_ml=_best(gross, count=best_of, radius_mm=radius_mm, spacing=spacing),
        holds=tuple(holds),
    )


def ball_around(position: Voxel, shape: tuple[int, ...], *, radius_mm: float, spacing: Spacing) -> NDArray[np.bool_]:
    """Mask of `shape` (z, y, x) of the voxels whose centre is at most `radius_mm` from that of a voxel."""
    z, y, x = (
        ((np.arange(size) - centre) * step) ** 2 for size, centre, step in zip(shape, position, spacing, strict=True)
    )
    inside: NDArray[np.bool_] = z[:, None, None] + y[:, None] + x <= radius_mm**2
    return inside


def _best(gross: NDArray[np.bool_], *, count: int, radius_mm: float, spacing: Spacing) -> tuple[float, ...]:
    """mL seen by the first n of `count` looks, each of which shows the most that is not yet seen."""
    left = gross.copy()
    seen: list[float] = []
    for _ in range(count):
        inside = ball_sum(left.astype(np.float32), radius_mm=radius_mm, spacing=spacing)
        z, y, x = (int(n) for n in np.unravel_index(int(inside.argmax()), inside.shape))
        ball = ball_around((z, y, x), gross.shape, radius_mm=radius_mm, spacing=spacing)
        left &= ~ball
        seen.append((np.count_nonzero(gross) - np.count_nonzero(left)) * _voxel_ml(spacing))
    return tuple(seen)


def ball_sum(values: NDArray[np.float32], *, radius_mm: float, spacing: Spacing) -> NDArray[np.float32]:
    """The sum of `values` (z, y, x) over the ball around every voxel; `values` are 0 outside the array."""
    reach = [int(radius_mm / step) for step in spacing]
    ball = ball_around(
        (reach[0], reach[1], reach[2]), tuple(2 * n + 1 for n in reach), radius_mm=radius_mm, spacing=spacing
    )
    total: NDArray[np.float32] = fftconvolve(values, ball.astype(np.float32), mode="same")
    return total


def _voxel_ml(spacing: Spacing) -> float:
    return float(np.prod(spacing)) / 1000.0
