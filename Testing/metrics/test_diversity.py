"""Measures of diversity, on cases with a closed form."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from DiffusionSegmentBackend.metrics.diversity import (
    best_dice,
    fair_crps,
    jittered_copies,
    label_distances,
    mask_dice,
    range_coverage,
    sample_range_covers,
    spread_skill,
)
from numpy.typing import NDArray

SPACING = (2.0, 1.0, 1.0)


def slab(first: int, last: int, value: int = 1) -> NDArray[np.uint8]:
    labels = np.zeros((20, 4, 4), np.uint8)
    labels[first:last] = value
    return labels


def ball(radius: float, side: int = 32) -> NDArray[np.bool_]:
    axes = np.indices((side,) * 3) - (side - 1) / 2
    return np.asarray((axes**2).sum(axis=0) <= radius**2)


def test_the_distance_of_labels_is_symmetric_and_zero_for_a_label_that_both_lack() -> None:
    first, second = slab(0, 10), slab(5, 20)
    np.testing.assert_allclose(label_distances(first, second, 3), [1 - 2 * 5 / 25, 0])
    np.testing.assert_allclose(label_distances(second, first, 3), label_distances(first, second, 3))
    np.testing.assert_allclose(label_distances(first, slab(0, 10, value=2), 3), [1, 1])


def test_spread_and_skill_of_shifted_slabs() -> None:
    # Slabs of ten planes: a shift of n planes has the distance n / 10.
    samples = [slab(0, 10), slab(2, 12), slab(4, 14)]
    measured = spread_skill(samples, slab(1, 11), 3)
    assert measured.spread[0] == pytest.approx((0.2 + 0.4 + 0.2) / 3)
    assert measured.skill[0] == pytest.approx((0.1 + 0.1 + 0.3) / 3)
    assert measured.ratio[0] == pytest.approx(0.8 / 0.5)
    assert np.isnan([measured.spread[1], measured.skill[1], measured.ratio[1]]).all()


@pytest.mark.filterwarnings("error")
def test_equal_samples_have_no_spread_and_perfect_ones_no_ratio() -> None:
    assert spread_skill([slab(0, 10)] * 3, slab(1, 11), 2).ratio[0] == 0
    assert np.isnan(spread_skill([slab(0, 10)] * 2, slab(0, 10), 2).ratio[0])
    with pytest.raises(ValueError, match="two samples"):
        spread_skill([slab(0, 10)], slab(0, 10), 2)


def test_the_ratio_is_one_for_a_truth_that_is_exchangeable_with_the_samples() -> None:
    rng = np.random.default_rng(0)
    spreads, skills = [], []
    for _ in range(400):
        *samples, truth = (slab(n, n + 10) for n in rng.integers(0, 10, 5))
        measured = spread_skill(samples, truth, 2)
        spreads.append(measured.spread[0])
        skills.append(measured.skill[0])
    assert np.mean(spreads) / np.mean(skills) == pytest.approx(1, abs=0.05)


def test_the_fair_crps_of_two_values_by_hand() -> None:
    assert fair_crps([0.0, 1.0], 0.0) == pytest.approx(0.5 - 1 / 2)
    assert fair_crps([0.0, 1.0], 3.0) == pytest.approx(2.5 - 0.5)
    assert fair_crps([2.0, 2.0, 2.0], 5.0) == pytest.approx(3)
    with pytest.raises(ValueError, match="two values"):
        fair_crps([1.0], 1.0)


@pytest.mark.parametrize("count", [2, 5, 20])
def test_the_mean_fair_crps_is_that_of_the_normal_distribution_for_any_number_of_samples(count: int) -> None:
    # CRPS of N(0, 1) at 0: 2 phi(0) - 1 / sqrt(pi) (Gneiting and Raftery 2007, section 4.2).
    rng = np.random.default_rng(1)
    scores = [fair_crps(rng.standard_normal(count), 0.0) for _ in range(20_000)]
    expected = 2 / np.sqrt(2 * np.pi) - 1 / np.sqrt(np.pi)
    assert np.mean(scores) == pytest.approx(expected, abs=0.012)


def test_the_range_of_samples_covers_an_exchangeable_value_as_often_as_stated() -> None:
    rng = np.random.default_rng(2)
    for count in (2, 8):
        hits = [sample_range_covers(draw[1:], float(draw[0])) for draw in rng.random((4000, count + 1))]
        assert np.mean(hits) == pytest.approx(range_coverage(count), abs=0.03)
    assert range_coverage(4) == pytest.approx(0.6)


def test_the_best_of_the_samples_is_chosen_for_each_organ() -> None:
    first, second = slab(0, 10), slab(5, 10)
    second[15:20] = 2
    truth = slab(0, 10)
    truth[15:20] = 2
    np.testing.assert_allclose(best_dice([first, second], truth, 4), [1, 1, np.nan])


@pytest.mark.parametrize("spread", [0.03, 0.15])
def test_jittered_copies_have_the_spread_that_was_asked_for(spread: float) -> None:
    copies = jittered_copies(ball(10), (1.0, 1.0, 1.0), count=4, spread=spread, rng=np.random.default_rng(3))
    measured = np.mean([1 - mask_dice(a, b) for a, b in combinations(copies, 2)])
    assert measured == pytest.approx(spread, rel=0.1)
    again = jittered_copies(ball(10), (1.0, 1.0, 1.0), count=4, spread=spread, rng=np.random.default_rng(3))
    assert all(np.array_equal(a, b) for a, b in zip(copies, again, strict=True))


def test_copies_without_spread_or_organ_are_the_mask_itself() -> None:
    mask, rng = ball(5, 16), np.random.default_rng(0)
    assert all(np.array_equal(c, mask) for c in jittered_copies(mask, SPACING, count=2, spread=0.0, rng=rng))
    empty = np.zeros((4, 4, 4), bool)
    assert not any(c.any() for c in jittered_copies(empty, SPACING, count=2, spread=0.3, rng=rng))
    assert mask_dice(empty, empty) == 1
