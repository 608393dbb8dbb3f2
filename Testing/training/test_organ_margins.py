"""Margins of organs: dilations of known masks, the order statistic, and organs that were missed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from DiffusionSegmentBackend.training.organ_margins import (
    conformal_margin,
    containing_dilations_mm,
    organ_margins,
)

SPACING = (4.0, 2.0, 1.0)


def test_the_dilation_is_the_distance_in_mm_that_contains_the_organ() -> None:
    """The prediction lacks one slice above, two voxels behind and three to the left in turn."""
    truth = np.zeros((12, 12, 12), np.uint8)
    truth[4:8, 4:8, 4:8] = 1
    for lacking, mm in ((np.s_[7:, :, :], 4.0), (np.s_[:, 6:, :], 4.0), (np.s_[:, :, 5:], 3.0)):
        predicted = truth.copy()
        predicted[lacking] = 0
        assert containing_dilations_mm(predicted, truth, classes=2, spacing=SPACING) == pytest.approx([mm])


def test_one_hundredth_of_the_organ_may_lie_outside() -> None:
    truth = np.zeros((40, 10, 10), np.uint8)
    truth[:2, :, :] = 1
    predicted = truth.copy()
    truth[39, 0, 0] = 1
    assert containing_dilations_mm(predicted, truth, classes=2, spacing=SPACING) == [0.0]
    truth[39, 0, :3] = 1
    assert containing_dilations_mm(predicted, truth, classes=2, spacing=SPACING) == pytest.approx([38 * 4.0])


def test_an_absent_organ_has_no_dilation_and_a_missed_one_an_infinite_one() -> None:
    truth, predicted = np.zeros((2, 6, 6, 6), np.uint8)
    truth[1:3] = 1
    predicted[4:] = 1
    predicted[0] = 2
    dilations = containing_dilations_mm(predicted, truth, classes=3, spacing=SPACING)
    assert math.isinf(dilations[0])
    assert math.isnan(dilations[1])


@pytest.mark.parametrize(("scans", "rank"), [(9, 9), (10, 10), (19, 18), (22, 21), (99, 90)])
def test_the_margin_is_the_conformal_order_statistic(scans: int, rank: int) -> None:
    margin = conformal_margin([float(n) for n in range(1, scans + 1)])
    assert margin is not None
    assert (margin.mm, margin.scans, margin.coverage, margin.missed) == (rank, scans, 0.9, 0)


def test_too_few_scans_give_no_margin_and_missed_organs_do_not_count() -> None:
    assert conformal_margin([1.0] * 8) is None
    assert conformal_margin([1.0] * 8 + [math.inf]) is None
    margin = conformal_margin([1.23] * 9 + [math.inf] * 2)
    assert margin is not None
    assert (margin.mm, margin.scans, margin.missed) == (1.3, 9, 2)


def test_scans_without_the_organ_do_not_count() -> None:
    dilations = np.full((10, 2), 2.0)
    dilations[0] = np.nan
    dilations[1, 1] = np.nan
    first, second = organ_margins(dilations)
    assert first is not None
    assert first.scans == 9
    assert second is None
