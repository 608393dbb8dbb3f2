"""Alternatives of one region: distinct, plausible, at most four, and nothing outside the region."""

from __future__ import annotations

import numpy as np
import pytest
from DiffusionSegmentBackend.pipeline.interactive.region_alternatives import (
    MIN_DIFFERENCE_ML,
    RegionMaps,
    competing_pairs,
    region_hypotheses,
)
from numpy.typing import NDArray

SIDE = 16
VOXEL_ML = 0.027
BACKGROUND, LIVER, STOMACH = 0, 1, 2


def two_labels(p_liver: NDArray[np.float64]) -> NDArray[np.float32]:
    """Probabilities of background, liver and stomach, which has none."""
    return np.stack([1 - p_liver, p_liver, 0 * p_liver]).astype(np.float32)


def maps_of(probabilities: NDArray[np.float32], inside: NDArray[np.bool_], *samples: NDArray[np.uint8]) -> RegionMaps:
    labels = probabilities.argmax(axis=0).astype(np.uint8)
    return RegionMaps(probabilities=probabilities, labels=labels, inside=inside, samples=samples)


@pytest.fixture
def boundary() -> RegionMaps:
    """A liver whose probability falls from 1 to 0 along x; uncertain voxels have one of 0.2 to 0.8."""
    x = np.broadcast_to(np.arange(SIDE), (SIDE, SIDE, SIDE))
    p_liver = 1 / (1 + np.exp((x - SIDE / 2 + 0.5) / 2))
    return maps_of(two_labels(p_liver), (p_liver > 0.2) & (p_liver < 0.8))


def test_the_boundary_is_moved_both_ways_to_other_levels(boundary: RegionMaps) -> None:
    hypotheses = region_hypotheses(boundary, voxel_ml=VOXEL_ML)
    volumes = [np.count_nonzero(h.labels == LIVER) - np.count_nonzero(boundary.labels == LIVER) for h in hypotheses]
    assert min(volumes) < 0 < max(volumes)
    for hypothesis in hypotheses:
        assert np.array_equal(hypothesis.labels[~boundary.inside], boundary.labels[~boundary.inside])
        # A level set: all voxels of a plane have one label.
        assert (hypothesis.labels == hypothesis.labels[:1, :1]).all()


def test_at_most_four_alternatives_of_descending_probability(boundary: RegionMaps) -> None:
    rng = np.random.default_rng(0)
    samples = [rng.integers(0, 3, (SIDE,) * 3).astype(np.uint8) for _ in range(20)]
    maps = RegionMaps(
        probabilities=boundary.probabilities, labels=boundary.labels, inside=boundary.inside, samples=samples
    )
    hypotheses = region_hypotheses(maps, voxel_ml=VOXEL_ML)
    probabilities = [h.probability for h in hypotheses]
    assert len(hypotheses) == 4
    assert probabilities == sorted(probabilities, reverse=True)
    assert 0 < sum(probabilities) < 1
    for n, first in enumerate(hypotheses):
        assert np.count_nonzero(first.labels != maps.labels) * VOXEL_ML >= MIN_DIFFERENCE_ML
        for second in hypotheses[:n]:
            assert np.count_nonzero(first.labels != second.labels) * VOXEL_ML >= MIN_DIFFERENCE_ML


def test_the_probability_is_the_likelihood_relative_to_the_present_labels() -> None:
    inside = np.zeros((SIDE, SIDE, SIDE), bool)
    inside[4:10, 4:10, 4:10] = True
    hypotheses = region_hypotheses(maps_of(two_labels(0.4 * inside), inside), voxel_ml=VOXEL_ML)
    assert len(hypotheses) == 1
    assert (hypotheses[0].labels == np.where(inside, LIVER, BACKGROUND)).all()
    # (0.4 / 0.6) / (1 + 0.4 / 0.6)
    assert hypotheses[0].probability == pytest.approx(0.4)


def test_a_sample_is_an_alternative_unless_it_equals_the_present_labels(boundary: RegionMaps) -> None:
    certain = two_labels((boundary.labels == LIVER).astype(np.float64))
    assert region_hypotheses(maps_of(certain, boundary.inside, boundary.labels), voxel_ml=VOXEL_ML) == []
    stomach = np.full_like(boundary.labels, STOMACH)
    (only,) = region_hypotheses(maps_of(certain, boundary.inside, boundary.labels, stomach), voxel_ml=VOXEL_ML)
    assert (only.labels == np.where(boundary.inside, STOMACH, boundary.labels)).all()


def test_a_difference_below_a_third_of_a_millilitre_is_no_alternative(boundary: RegionMaps) -> None:
    assert region_hypotheses(boundary, voxel_ml=MIN_DIFFERENCE_ML / SIDE**3) == []


def test_pairs_are_ordered_by_the_probability_of_the_second_label() -> None:
    probabilities = np.zeros((3, 4, 4, 4), np.float32)
    probabilities[:, :2] = np.array([0.7, 0.3, 0.0])[:, None, None, None]
    probabilities[:, 2:] = np.array([0.0, 0.45, 0.55])[:, None, None, None]
    pairs = competing_pairs(maps_of(probabilities, np.ones((4, 4, 4), bool)))
    assert pairs == [(STOMACH, LIVER), (LIVER, BACKGROUND)]


def test_the_alternatives_are_reproducible(boundary: RegionMaps) -> None:
    first, second = (region_hypotheses(boundary, voxel_ml=VOXEL_ML) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.labels, other.labels)
        assert one.probability == other.probability
