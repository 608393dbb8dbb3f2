"""Measures, checked by hand-made cases and against MONAI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.metrics.overlap import (
    centroid_values,
    dice_by_label,
    dice_of_vox2vec,
    errors_in_most_uncertain,
)
from monai.metrics import DiceMetric


def test_dice_equals_that_of_monai() -> None:
    rng = np.random.default_rng(0)
    predicted, truth = rng.integers(0, 4, (2, 12, 13, 14)).astype(np.uint8)
    ours = dice_by_label(predicted, truth, 4)
    one_hot = [
        torch.nn.functional.one_hot(torch.from_numpy(a).long(), 4).movedim(-1, 0)[None] for a in (predicted, truth)
    ]
    theirs = DiceMetric(include_background=False, reduction="none")(*one_hot)[0]
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6)


def test_an_absent_organ_has_no_dice_and_a_missed_organ_has_a_dice_of_0() -> None:
    truth = np.array([[0, 1], [1, 1]], np.uint8)
    assert dice_by_label(np.zeros_like(truth), truth, 3)[0] == 0
    assert np.isnan(dice_by_label(truth * 2, truth, 3)[1])


def test_dice_of_vox2vec_is_computed_at_1_by_1_by_2_mm() -> None:
    """Four voxels of 2 x 1 x 4 mm are each resampled to 2 x 1 x 2 points; the counts alone would give the same Dice."""
    truth = np.array([[[1, 1, 0, 2]]], np.uint8)
    predicted = np.array([[[1, 0, 0, 2]]], np.uint8)
    scores = dice_of_vox2vec(predicted, truth, 3, index_to_lps=np.diag([2.0, 1.0, 4.0, 1.0]))
    np.testing.assert_allclose(scores, [2 / 3, 1])


def test_dice_of_vox2vec_resamples_slices_to_the_nearest_plane() -> None:
    """At 3 mm, planes of 2 mm are taken from planes 0, 1, 1: the second counts twice."""
    truth = np.array([1, 1], np.uint8).reshape(2, 1, 1)
    predicted = np.array([0, 1], np.uint8).reshape(2, 1, 1)
    scores = dice_of_vox2vec(predicted, truth, 2, index_to_lps=np.diag([1.0, 1.0, 3.0, 1.0]))
    np.testing.assert_allclose(scores, [4 / 5])


def test_dice_of_vox2vec_is_1_for_an_organ_absent_in_both_maps() -> None:
    truth = np.zeros((2, 2, 2), np.uint8)
    predicted = truth.copy()
    predicted[:, 0, 0] = 2
    np.testing.assert_array_equal(dice_of_vox2vec(predicted, truth, 3, index_to_lps=np.eye(4)), [1, 0])


def test_errors_are_counted_where_uncertainty_is_highest() -> None:
    uncertainty = np.arange(100, dtype=np.float32)
    wrong = uncertainty >= 95
    assert errors_in_most_uncertain(uncertainty, wrong, share=0.05) == 1
    assert errors_in_most_uncertain(-uncertainty, wrong, share=0.05) == 0
    assert errors_in_most_uncertain(uncertainty, wrong, share=0.02) == pytest.approx(0.4)


def test_values_are_sampled_at_centroids() -> None:
    labels = np.zeros((5, 5, 5), np.uint8)
    labels[1:4, 2, 2] = 1
    field = np.stack(np.indices(labels.shape)).astype(np.float32)
    values = centroid_values(field, labels, 3)
    np.testing.assert_array_equal(values[0], (2, 2, 2))
    assert np.isnan(values[1]).all()
