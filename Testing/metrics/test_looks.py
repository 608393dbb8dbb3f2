"""Gross errors and looks, on volumes whose answers follow by counting."""

from __future__ import annotations

import numpy as np
import pytest
from DiffusionSegmentBackend.metrics.looks import gross_errors, look
from numpy.typing import NDArray

SPACING = (3.0, 2.0, 2.0)
VOXEL_ML = 0.012


def empty() -> NDArray[np.uint8]:
    return np.zeros((24, 40, 40), np.uint8)


def test_an_error_of_the_boundary_is_not_gross() -> None:
    truth, labels = empty(), empty()
    truth[4:20, 8:32, 8:32] = 1
    labels[4:20, 8:33, 8:33] = 1  # one voxel larger on two sides
    assert not gross_errors(labels, truth, spacing=SPACING).any()


def test_a_thick_error_is_gross_and_has_one_number() -> None:
    truth, labels = empty(), empty()
    labels[6:12, 10:20, 10:20] = 1
    labels[16:21, 30:37, 30:37] = 2
    errors = gross_errors(labels, truth, spacing=SPACING)
    assert set(np.unique(errors)) == {0, 1, 2}
    assert errors[8, 15, 15] != errors[18, 33, 33]


def test_a_gross_error_below_the_minimum_volume_is_left_out() -> None:
    truth, labels = empty(), empty()
    labels[6:12, 10:20, 10:20] = 1
    volume = np.count_nonzero(gross_errors(labels, truth, spacing=SPACING)) * VOXEL_ML
    assert gross_errors(labels, truth, spacing=SPACING, min_ml=volume).any()
    assert not gross_errors(labels, truth, spacing=SPACING, min_ml=1.01 * volume).any()


def test_looks_add_what_they_show_and_the_best_list_is_the_yardstick() -> None:
    truth, labels = empty(), empty()
    labels[6:12, 4:14, 4:14] = 1
    labels[16:22, 30:36, 30:36] = 1
    errors = gross_errors(labels, truth, spacing=SPACING)
    first, second = (8, 9, 9), (19, 33, 33)
    seen = look(errors, [second, first, (2, 38, 2)], spacing=SPACING, radius_mm=16.0, best_of=3)
    assert seen.holds == (True, True, False)
    assert seen.seen_ml[0] < seen.seen_ml[1] == seen.seen_ml[2] == pytest.approx(seen.gross_ml)
    assert seen.best_ml[0] > seen.seen_ml[0]
    assert seen.best_ml[-1] == pytest.approx(seen.gross_ml)
    assert seen.recall(3) == pytest.approx(1.0)
    assert seen.recall(1) < 1
    assert np.isnan(look(np.zeros_like(errors), [first], spacing=SPACING).recall(1))
