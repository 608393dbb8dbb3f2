"""Calibration measures, on cases that can be solved by hand."""

from __future__ import annotations

import numpy as np
import pytest
from DiffusionSegmentBackend.metrics.calibration import (
    area_under_risk_coverage,
    band_ece,
    boundary_band,
    brier,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    rank_correlation,
    tempered,
)
from numpy.typing import NDArray


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=0))
    return powers / powers.sum(axis=0)


def drawn_labels(probabilities: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint8]:
    cumulative = probabilities.cumsum(axis=0)
    return (rng.random(probabilities.shape[1]) > cumulative[:-1]).sum(axis=0).astype(np.uint8)


def test_the_band_of_a_half_space_has_its_width_in_mm_along_any_axis() -> None:
    spacing = (2.5, 1.0, 0.5)
    for axis, step in enumerate(spacing):
        labels = np.zeros((40, 40, 40), np.uint8)
        np.moveaxis(labels, axis, 0)[20:] = 3
        band = np.moveaxis(boundary_band(labels, spacing, width_mm=5.0), axis, 0)
        reach = int(5.0 / step)  # voxels beyond the ones that touch the boundary, which are 19 and 20
        expected = np.zeros(40, bool)
        expected[19 - reach : 21 + reach] = True
        np.testing.assert_array_equal(band, np.broadcast_to(expected[:, None, None], band.shape))


def test_the_band_measures_diagonals_and_boundaries_between_two_organs() -> None:
    labels = np.ones((1, 21, 21), np.uint8)
    labels[0, 10, 10] = 2
    band = boundary_band(labels, (5.0, 1.0, 1.0), width_mm=2.0)
    assert band[0, 10, 13]  # 2 mm from (10, 11), which touches the other organ
    assert not band[0, 10, 14]
    assert band[0, 12, 11]
    assert not band[0, 12, 12]  # sqrt(5) mm from the nearest voxel that touches it
    assert np.count_nonzero(band) == 25


@pytest.mark.filterwarnings("error")
def test_a_map_of_one_label_has_no_band_and_no_band_error() -> None:
    labels = np.zeros((4, 5, 6), np.uint8)
    assert not boundary_band(labels, (1.0, 1.0, 1.0)).any()
    assert np.isnan(band_ece(np.ones((2, 4, 5, 6), np.float32), labels, (1.0, 1.0, 1.0)))


def test_calibrated_confidence_has_no_error_and_overconfidence_has_its_gap() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 200_000)
    assert expected_calibration_error(confidence, rng.random(confidence.size) < confidence) < 0.005
    certain = np.full(1000, 0.95, np.float32)
    assert expected_calibration_error(certain, np.arange(1000) < 700) == pytest.approx(0.25, abs=1e-6)


def test_calibration_error_weighs_gaps_of_bins_that_are_closed_above() -> None:
    confidence = np.array([0.25, 0.5, 0.75, 1.0])
    correct = np.array([False, True, True, True])
    # Two bins, (0, 0.5] and (0.5, 1]: |0.75 - 1| / 4 + |1.75 - 2| / 4.
    assert expected_calibration_error(confidence, correct, bins=2) == pytest.approx(0.125)
    # Over- and underconfidence cancel in one bin: |2.5 - 3| / 4; four bins keep them apart.
    assert expected_calibration_error(confidence, correct, bins=1) == pytest.approx(0.125)
    assert expected_calibration_error(confidence, correct, bins=4) == pytest.approx((0.25 + 0.5 + 0.25 + 0) / 4)


def test_the_band_error_ignores_voxels_far_from_boundaries() -> None:
    labels = np.zeros((20, 4, 4), np.uint8)
    labels[10:] = 1
    foreground = np.where(labels == 1, 1.0, 0.0).astype(np.float32)
    foreground[8:12] = 0.9  # the four slices within 1 mm: right in two, at a confidence of 0.9
    probabilities = np.stack([1 - foreground, foreground])
    spacing = (1.0, 1.0, 1.0)
    assert band_ece(probabilities, labels, spacing, width_mm=1.0) == pytest.approx(0.4, abs=1e-6)
    assert band_ece(probabilities, labels, spacing, width_mm=100.0) == pytest.approx(0.4 * 4 / 20, abs=1e-6)


def test_brier_and_likelihood_of_certain_and_uncertain_maps() -> None:
    labels = np.array([0, 1, 2], np.uint8)
    right = np.eye(3, dtype=np.float32)
    wrong = np.roll(right, 1, axis=0)
    even = np.full((3, 3), 1 / 3, np.float32)
    assert (brier(right, labels), brier(wrong, labels)) == (0, 2)
    assert brier(even, labels) == pytest.approx(2 / 3)
    assert negative_log_likelihood(right, labels) == 0
    assert negative_log_likelihood(even, labels) == pytest.approx(np.log(3))
    assert negative_log_likelihood(wrong, labels) == pytest.approx(6 * np.log(10))


@pytest.mark.filterwarnings("error")
def test_risk_coverage_of_a_perfect_a_reversed_and_an_empty_ranking() -> None:
    correct = np.array([True, True, False, False])
    confidence = np.array([0.9, 0.8, 0.2, 0.1])
    assert area_under_risk_coverage(confidence, correct) == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)
    assert area_under_risk_coverage(-confidence, correct) == pytest.approx((1 + 1 + 2 / 3 + 1 / 2) / 4)
    assert np.isnan(area_under_risk_coverage(np.zeros(0), np.zeros(0, bool)))


def test_risk_coverage_of_ties_does_not_depend_on_the_order_of_voxels() -> None:
    correct = np.array([True, True, False, False])
    for order in (correct, correct[::-1]):
        assert area_under_risk_coverage(np.ones(4), order) == pytest.approx(0.5)


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 2.5])
def test_the_temperature_of_sampled_labels_is_recovered(true_temperature: float) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (4, 100_000))
    labels = drawn_labels(softmax(logits / true_temperature), rng)
    assert fit_temperature(logits.astype(np.float32), labels) == pytest.approx(true_temperature, rel=0.02)
    log_probabilities = np.log(softmax(logits))
    assert fit_temperature(log_probabilities, labels) == pytest.approx(true_temperature, rel=0.02)


def test_weights_select_the_voxels_of_the_temperature() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 3, (3, 100_000))
    sharp = np.arange(100_000) < 50_000
    labels = drawn_labels(softmax(logits / np.where(sharp, 0.5, 2.0)), rng)
    for chosen, expected in ((sharp, 0.5), (~sharp, 2.0)):
        temperature = fit_temperature(logits, labels, weights=chosen.astype(np.float32))
        assert temperature == pytest.approx(expected, rel=0.03)


def test_the_temperature_stays_in_its_range_and_needs_voxels() -> None:
    logits = np.array([[2.0, 0.0], [0.0, 2.0]])
    assert fit_temperature(logits, np.array([0, 1])) == pytest.approx(0.2, rel=0.01)
    assert fit_temperature(logits, np.array([1, 0])) == pytest.approx(5, rel=0.01)
    with pytest.raises(ValueError, match="no voxels"):
        fit_temperature(np.zeros((2, 0)), np.zeros(0, np.uint8))


def test_tempering_probabilities_equals_dividing_logits() -> None:
    logits = np.random.default_rng(3).normal(0, 2, (5, 3, 4, 2))
    for temperature in (0.2, 1.0, 3.0):
        np.testing.assert_allclose(tempered(softmax(logits), temperature), softmax(logits / temperature), atol=1e-12)
    softened = tempered(np.array([[0.0, 0.2], [1.0, 0.8]], np.float32), 2.0)
    np.testing.assert_allclose(softened, [[0, 1 / 3], [1, 2 / 3]], rtol=1e-6)
    assert softened.dtype == np.float32


def test_rank_correlation_depends_only_on_ranks_and_ignores_missing_values() -> None:
    uncertainty = np.array([1.0, 10.0, 100.0, np.nan, 5.0])
    dice = np.array([0.9, 0.8, 0.1, 0.95, np.nan])
    assert rank_correlation(uncertainty, dice) == pytest.approx(-1)
    assert rank_correlation(uncertainty[:3], dice[[0, 2, 1]]) == pytest.approx(-0.5)


@pytest.mark.filterwarnings("error")
def test_rank_correlation_of_too_few_or_constant_values_is_not_a_number() -> None:
    assert np.isnan(rank_correlation(np.array([1.0, 2.0, np.nan]), np.array([1.0, 2.0, 3.0])))
    assert np.isnan(rank_correlation(np.ones(4), np.arange(4.0)))
    assert np.isnan(rank_correlation(np.arange(4.0), np.ones(4)))
