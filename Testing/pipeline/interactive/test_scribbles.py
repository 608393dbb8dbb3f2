"""Scribbles: their reach, their propagation into the pre-segmentation, and the simulated reader."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.pipeline.constraints import clamped, one_hot_scribbles
from DiffusionSegmentBackend.pipeline.interactive.scribbles import REACH_VOXELS, Descriptors, reach, spread
from DiffusionSegmentBackend.training.simulated_reader import STROKES, largest_errors, random_stroke, stroke_on
from torch import Tensor

SHAPE = (40, 40, 40)
LIVER, SPLEEN = 1, 2


def _two_tissues() -> Tensor:
    """Features: one tissue at x < 20, another beyond."""
    features = torch.zeros(4, *SHAPE)
    features[0, :, :, :20] = 1
    features[1, :, :, 20:] = 1
    return features


def _all_background() -> Tensor:
    pre = torch.full((3, *SHAPE), 0.05)
    pre[0] = 0.9
    return pre


def _scribble(z: int, y: int, x: int, label: int) -> Tensor:
    scribbles = torch.zeros(SHAPE, dtype=torch.uint8)
    scribbles[z, y, x] = label + 1
    return one_hot_scribbles(scribbles, 3)


def test_a_scribble_is_certain_and_propagates_to_similar_voxels_within_reach() -> None:
    pre = _all_background()
    propagated = spread(pre, _scribble(20, 20, 15, SPLEEN), Descriptors(_two_tissues()))
    torch.testing.assert_close(propagated.sum(dim=0), torch.ones(SHAPE))
    assert propagated[SPLEEN, 20, 20, 15] == 1
    assert propagated[SPLEEN, 20, 22, 15] > 0.5, "the same tissue nearby"
    assert propagated[SPLEEN, 20, 20, 21] == pre[SPLEEN, 20, 20, 21], "another tissue"
    assert propagated[SPLEEN, 20, 20, 14] > propagated[SPLEEN, 20, 20, 10] > propagated[SPLEEN, 20, 20, 5] > 0.05
    beyond = ~reach(_scribble(20, 20, 15, SPLEEN).sum(dim=0) > 0)
    assert torch.equal(propagated[:, beyond], pre[:, beyond])


def test_a_scribble_changes_only_voxels_of_the_label_that_it_corrects() -> None:
    pre = _all_background()
    pre[:, :, 25:, :] = torch.tensor([0.0, 1.0, 0.0])[:, None, None, None]
    propagated = spread(pre, _scribble(20, 23, 10, SPLEEN), Descriptors(torch.ones(4, *SHAPE)))
    assert torch.equal(propagated[:, :, 25:, :], pre[:, :, 25:, :]), "the liver next to it was not corrected"
    assert propagated[SPLEEN, 20, 22, 10] > 0.8


def test_a_confirming_scribble_or_none_changes_no_other_voxel() -> None:
    pre = _all_background()
    assert spread(pre, torch.zeros_like(pre), Descriptors(_two_tissues())) is pre
    propagated = spread(pre, _scribble(20, 20, 15, 0), Descriptors(_two_tissues()))
    assert torch.equal(propagated, clamped(pre, _scribble(20, 20, 15, 0)))


def test_scribbles_on_both_sides_of_a_surface_keep_both_organs() -> None:
    """They move the surface; the interior of the organ keeps its label."""
    pre = torch.full((3, *SHAPE), 0.02)
    pre[0, :, :, 20:] = pre[SPLEEN, :, :, :20] = 0.96
    scribbles = torch.zeros(SHAPE, dtype=torch.uint8)
    scribbles[5:35, 5:35, 19] = 0 + 1
    scribbles[5:35, 5:35, 20:22] = SPLEEN + 1
    propagated = spread(pre, one_hot_scribbles(scribbles, 3), Descriptors(torch.ones(4, *SHAPE)))
    np.testing.assert_array_equal(propagated.argmax(dim=0)[scribbles > 0], scribbles[scribbles > 0] - 1)
    assert (propagated.argmax(dim=0)[20, 20, :18] == SPLEEN).all()
    alone = torch.where(scribbles == 1, scribbles, 0)
    assert (
        spread(pre, one_hot_scribbles(alone, 3), Descriptors(torch.ones(4, *SHAPE))).argmax(dim=0)[20, 20, 15:18] == 0
    ).all()


def test_two_scribbles_of_different_labels_share_the_voxels_between_them() -> None:
    scribbles = _scribble(20, 20, 10, LIVER) + _scribble(20, 20, 16, SPLEEN)
    propagated = spread(_all_background(), scribbles, Descriptors(torch.ones(4, *SHAPE)))
    torch.testing.assert_close(propagated.sum(dim=0), torch.ones(SHAPE))
    assert propagated[LIVER, 20, 20, 11] > propagated[SPLEEN, 20, 20, 11]
    assert propagated[SPLEEN, 20, 20, 15] > propagated[LIVER, 20, 20, 15]
    assert float(propagated.min()) >= 0


def test_reach_is_a_box_of_known_size() -> None:
    inside = reach(_scribble(20, 20, 15, SPLEEN).sum(dim=0) > 0)
    assert inside[20, 20, 15 + REACH_VOXELS]
    assert not inside[20, 20, 15 + REACH_VOXELS + 1]


def _wrong_prediction() -> tuple[np.ndarray, np.ndarray]:
    truth = np.zeros(SHAPE, dtype=np.uint8)
    truth[10:20, 10:30, 10:30] = SPLEEN
    predicted = truth.copy()
    predicted[12:18, 12:28, 12:28] = LIVER
    predicted[30:32, 30:32, 30:32] = LIVER
    return predicted, truth


def test_errors_are_returned_largest_first() -> None:
    predicted, truth = _wrong_prediction()
    first, second = largest_errors(predicted, truth, count=5)
    assert np.count_nonzero(first) == 6 * 16 * 16
    assert np.count_nonzero(second) == 8
    assert not largest_errors(truth, truth, count=5)


@pytest.mark.parametrize("kind", STROKES)
def test_a_stroke_gives_the_true_label_inside_its_region(kind: str) -> None:
    predicted, truth = _wrong_prediction()
    (error,) = largest_errors(predicted, truth, count=1)
    stroke = stroke_on(error, truth, kind=kind, generator=np.random.default_rng(0))
    assert stroke.label == SPLEEN
    assert stroke.voxels.any()
    assert (truth[stroke.voxels] == SPLEEN).all()
    assert np.count_nonzero(stroke.voxels & error) > 0.5 * np.count_nonzero(stroke.voxels)


def test_strokes_grow_from_click_to_slice() -> None:
    predicted, truth = _wrong_prediction()
    (error,) = largest_errors(predicted, truth, count=1)
    sizes = [
        np.count_nonzero(stroke_on(error, truth, kind=kind, generator=np.random.default_rng(0)).voxels)
        for kind in STROKES
    ]
    assert sizes == sorted(sizes)
    assert sizes[-1] == 16 * 16


def test_a_perfect_map_needs_no_stroke() -> None:
    _, truth = _wrong_prediction()
    assert random_stroke(truth, truth, np.random.default_rng(0)) is None
