"""Balls with a radius in mm on a grid of voxels: masks, sums and openings.

Arrays and spacings go along z, y, x; distances are between centres of voxels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal import fftconvolve

from .volume import Box

Spacing = tuple[float, float, float]
Voxel = tuple[int, int, int]


@dataclass(frozen=True)
class Ball:
    """The voxels within a radius of `centre` that lie on the grid: `inside` is a mask of the box."""

    centre: Voxel
    box: Box
    inside: NDArray[np.bool_]


def ball_around(centre: Voxel, shape: tuple[int, ...], *, radius_mm: float, spacing: Spacing) -> Ball:
    """The ball around a voxel of a grid of `shape`."""
    z, y, x = (
        slice(max(0, c - int(radius_mm / step)), min(size, c + int(radius_mm / step) + 1))
        for c, size, step in zip(centre, shape, spacing, strict=True)
    )
    along = [
        ((np.arange(part.start, part.stop) - c) * step) ** 2
        for part, c, step in zip((z, y, x), centre, spacing, strict=True)
    ]
    return Ball(centre, (z, y, x), along[0][:, None, None] + along[1][:, None] + along[2] <= radius_mm**2)


def ball_sum(values: NDArray[np.float32], *, radius_mm: float, spacing: Spacing) -> NDArray[np.float32]:
    """The sum of `values` (z, y, x) over the ball around every voxel; `values` are 0 outside the array."""
    reach = [int(radius_mm / step) for step in spacing]
    whole = ball_around(
        (reach[0], reach[1], reach[2]), tuple(2 * n + 1 for n in reach), radius_mm=radius_mm, spacing=spacing
    )
    total: NDArray[np.float32] = fftconvolve(values, whole.inside.astype(np.float32), mode="same")
    return total


def largest_balls(
    values: NDArray[np.float32], *, count: int, min_sum: float, radius_mm: float, spacing: Spacing
) -> list[Ball]:
    """Up to `count` balls, each with the largest sum of the `values` that no earlier one contains.

    The list ends before a ball whose sum is below `min_sum`. Greedy choice: the union of n balls holds at least
    1 - 1/e of what the best n balls could hold (maximum coverage, Nemhauser et al. 1978).
    """
    left = values.copy()
    sums = ball_sum(left, radius_mm=radius_mm, spacing=spacing)
    reach = [int(radius_mm / step) for step in spacing]
    balls: list[Ball] = []
    while len(balls) < count:
        z, y, x = (int(n) for n in np.unravel_index(int(sums.argmax()), sums.shape))
        if sums[z, y, x] < min_sum:
            break
        ball = ball_around((z, y, x), values.shape, radius_mm=radius_mm, spacing=spacing)
        balls.append(ball)
        left[ball.box][ball.inside] = 0
        changed = _grown(ball.box, reach, values.shape)
        around = _grown(changed, reach, values.shape)
        inner = tuple(slice(c.start - a.start, c.stop - a.start) for c, a in zip(changed, around, strict=True))
        sums[changed] = ball_sum(left[around], radius_mm=radius_mm, spacing=spacing)[inner]
    return balls


def opened(mask: NDArray[np.bool_], *, radius_mm: float, spacing: Spacing) -> NDArray[np.bool_]:
    """Morphological opening of a mask by a ball; outside the array everything counts as background."""
    padded = np.pad(mask, 1)
    eroded = ndimage.distance_transform_edt(padded, sampling=spacing) > radius_mm
    if not eroded.any():
        return np.zeros_like(mask)
    dilated = ndimage.distance_transform_edt(~eroded, sampling=spacing) <= radius_mm
    result: NDArray[np.bool_] = (dilated & padded)[1:-1, 1:-1, 1:-1]
    return result


def _grown(box: Box, reach: list[int], shape: tuple[int, ...]) -> Box:
    z, y, x = (
        slice(max(0, part.start - n), min(size, part.stop + n)) for part, n, size in zip(box, reach, shape, strict=True)
    )
    return z, y, x
