"""Intervals and paired tests, against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from DiffusionSegmentBackend.evaluation.statistics import bootstrap_interval, paired_difference

VALUES = [0.2, 0.5, 0.6, 0.7, 0.9, 0.95]


def test_the_interval_contains_the_mean_and_narrows_with_the_level() -> None:
    low, high = bootstrap_interval(VALUES)
    assert min(VALUES) < low < np.mean(VALUES) < high < max(VALUES)
    narrow = bootstrap_interval(VALUES, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_the_interval_is_that_of_the_mean_not_of_the_values() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)
    low, high = bootstrap_interval(values, rounds=4000)
    expected = 1.96 * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - expected, abs=0.02)
    assert high == pytest.approx(values.mean() + expected, abs=0.02)


def test_the_interval_repeats_with_its_seed_only() -> None:
    assert bootstrap_interval(VALUES, seed=3) == bootstrap_interval(VALUES, seed=3)
    assert bootstrap_interval(VALUES, rounds=50, seed=3) != bootstrap_interval(VALUES, rounds=50, seed=4)


def test_missing_cases_are_left_out_of_the_interval() -> None:
    assert bootstrap_interval([0.2, None, *VALUES[1:], math.nan]) == bootstrap_interval(VALUES)
    assert all(math.isnan(bound) for bound in bootstrap_interval([None, math.nan]))
    assert bootstrap_interval([0.4, None]) == (0.4, 0.4)


def test_a_constant_shift_is_estimated_exactly() -> None:
    difference = paired_difference([v + 0.1 for v in VALUES], VALUES)
    assert (difference.mean, difference.low, difference.high) == (
        pytest.approx(0.1),
        pytest.approx(0.1),
        pytest.approx(0.1),
    )
    assert difference.n == 6
    # Six differences of the same sign: 2 of the 2**6 patterns of signs are as extreme.
    assert difference.p == pytest.approx(2 / 64)


def test_swapping_the_sides_changes_the_sign_and_keeps_p() -> None:
    other = [0.3, 0.4, 0.9, 0.75, 0.95, 0.99]
    one, two = paired_difference(VALUES, other), paired_difference(other, VALUES)
    assert one.mean == pytest.approx(-two.mean)
    assert one.mean == pytest.approx(np.mean(VALUES) - np.mean(other))
    assert one.low <= one.mean <= one.high
    assert one.p == pytest.approx(two.p)


def test_a_pair_counts_only_when_both_sides_were_measured() -> None:
    difference = paired_difference([0.5, None, 0.7, math.nan], [0.4, 0.1, None, 0.2])
    assert difference.n == 1
    assert difference.mean == pytest.approx(0.1)
    nothing = paired_difference([None], [0.5])
    assert nothing.n == 0
    assert math.isnan(nothing.mean)
    assert nothing.p is None


def test_no_p_for_few_pairs_or_none_that_differs() -> None:
    assert paired_difference([0.5, 0.6, 0.7, 0.8], [0.1, 0.2, 0.3, 0.5]).p is None
    assert paired_difference([0.5, 0.6, 0.7, 0.8, 0.9], [0.1, 0.2, 0.3, 0.5, 0.1]).p == pytest.approx(2 / 32)
    # Equal up to the last bit: 0.1 + 0.2 is not quite 0.3.
    assert paired_difference([0.1 + 0.2] * 6, [0.3] * 6).p is None


@pytest.mark.parametrize("options", [{"level": 1.0}, {"level": 0.0}, {"rounds": 0}])
def test_invalid_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval(VALUES, **options)  # type: ignore[arg-type]


def test_sides_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="as many"):
        paired_difference(VALUES, VALUES[1:])
    with pytest.raises(ValueError, match="finite"):
        bootstrap_interval([math.inf])
