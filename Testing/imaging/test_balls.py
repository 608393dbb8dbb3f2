"""Balls in mm on grids of unequal spacing, against counting."""

from __future__ import annotations

import numpy as np
import pytest
from DiffusionSegmentBackend.imaging.balls import Voxel, ball_around, ball_sum, largest_balls, opened
from numpy.typing import NDArray

SPACING = (3.0, 2.0, 2.0)
SHAPE = (24, 40, 40)


def filled(centre: Voxel, radius_mm: float) -> NDArray[np.bool_]:
    ball = ball_around(centre, SHAPE, radius_mm=radius_mm, spacing=SPACING)
    mask = np.zeros(SHAPE, bool)
    mask[ball.box] = ball.inside
    return mask


@pytest.mark.parametrize("centre", [(12, 20, 20), (0, 39, 3)])
def test_a_ball_holds_the_voxels_within_its_radius_also_at_the_edge(centre: Voxel) -> None:
    distances = np.linalg.norm((np.argwhere(np.ones(SHAPE)) - centre) * SPACING, axis=1).reshape(SHAPE)
    assert np.array_equal(filled(centre, 7.0), distances <= 7.0)


def test_ball_sum_counts_the_voxels_within_the_radius_in_mm() -> None:
    point = np.zeros(SHAPE, np.float32)
    point[12, 20, 20] = 1
    assert np.array_equal(ball_sum(point, radius_mm=7.0, spacing=SPACING) > 0.5, filled((12, 20, 20), 7.0))


def test_opening_keeps_a_ball_and_removes_a_sheet() -> None:
    ball, sheet = filled((12, 20, 20), 9.0), np.zeros(SHAPE, bool)
    sheet[:, 20] = True
    kept = opened(ball, radius_mm=3.0, spacing=SPACING)
    assert not (kept & ~ball).any()
    assert np.count_nonzero(kept) > 0.9 * np.count_nonzero(ball)
    assert not opened(sheet, radius_mm=3.0, spacing=SPACING).any()


def test_the_largest_balls_do_not_count_a_voxel_twice() -> None:
    """Sums are updated locally; a search that computes all sums again must give the same balls."""
    values = np.random.default_rng(0).random(SHAPE, np.float32) ** 8
    balls = largest_balls(values, count=4, min_sum=0.1, radius_mm=9.0, spacing=SPACING)
    left = values.copy()
    for ball in balls:
        sums = ball_sum(left, radius_mm=9.0, spacing=SPACING)
        assert sums[ball.centre] == pytest.approx(sums.max(), rel=1e-4)
        left[ball.box][ball.inside] = 0
    assert len({ball.centre for ball in balls}) == 4


def test_the_largest_balls_end_below_the_minimum() -> None:
    values = np.zeros(SHAPE, np.float32)
    values[12, 20, 20] = 2.0
    values[2, 2, 2] = 0.5
    assert len(largest_balls(values, count=9, min_sum=1.0, radius_mm=6.0, spacing=SPACING)) == 1
