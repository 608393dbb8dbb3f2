"""Weighted logistic regression with a ridge."""

from __future__ import annotations

import numpy as np
import pytest
from DiffusionSegmentBackend.training.logistic import fit_logistic
from numpy.typing import NDArray


def drawn(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features, and targets with P = 1 / (1 + exp(1 - 2 * first + third))."""
    rng = np.random.default_rng(0)
    features = rng.normal(loc=(1.0, 2.0, 0.0), size=(count, 3))
    probability = 1 / (1 + np.exp(1 - 2 * features[:, 0] + features[:, 2]))
    return features, (rng.random(count) < probability).astype(float)


def test_the_coefficients_that_made_the_targets_are_found() -> None:
    intercept, slopes = fit_logistic(*drawn(300_000))
    assert intercept == pytest.approx(-1, abs=0.07)
    assert slopes == pytest.approx([2, 0, -1], abs=0.07)


def test_a_weight_of_three_counts_as_three_examples() -> None:
    features, targets = drawn(500)
    weights = np.where(np.arange(500) < 100, 3.0, 1.0)
    repeats = np.repeat(np.arange(500), weights.astype(int))
    weighted = fit_logistic(features, targets, weights)
    # Standardisation differs, which the ridge sees.
    repeated = fit_logistic(features[repeats], targets[repeats])
    assert weighted[0] == pytest.approx(repeated[0], abs=0.02)
    assert weighted[1] == pytest.approx(repeated[1], abs=0.02)


def test_separable_targets_have_finite_weights() -> None:
    features = np.linspace(-1, 1, 40)[:, None]
    intercept, slopes = fit_logistic(features, (features[:, 0] > 0).astype(float))
    assert np.isfinite([intercept, *slopes]).all()
    assert 1 < slopes[0] < 6
