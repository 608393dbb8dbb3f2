"""Normalised surface Dice, on boxes whose surfaces are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.metrics.surface import LabelSurfaces, surface_dice
from monai.metrics import compute_surface_dice
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

SPACING = (5.0, 1.0, 0.5)


def box(start: tuple[int, int, int], *, value: int = 1) -> NDArray[np.uint8]:
    """Map of (20, 60, 80) voxels with a box of (6, 30, 40) of them from `start`: 30 x 30 x 20 mm at `SPACING`."""
    labels = np.zeros((20, 60, 80), np.uint8)
    z, y, x = start
    labels[z : z + 6, y : y + 30, x : x + 40] = value
    return labels


def by_label(
    predicted: NDArray[np.uint8], truth: NDArray[np.uint8], classes: int, *, tolerance_mm: float = 2.0
) -> NDArray[np.float64]:
    surfaces = [LabelSurfaces(labels, classes, SPACING) for labels in (predicted, truth)]
    return surface_dice(surfaces[0], surfaces[1], tolerance_mm=tolerance_mm)


def score(predicted: NDArray[np.uint8], truth: NDArray[np.uint8], *, tolerance_mm: float = 2.0) -> float:
    return float(by_label(predicted, truth, 2, tolerance_mm=tolerance_mm)[0])


@pytest.mark.parametrize("moved", [(5, 11, 20), (5, 10, 22), (5, 10, 24)])
def test_a_shift_within_the_tolerance_gives_a_score_of_1(moved: tuple[int, int, int]) -> None:
    assert score(box(moved), box((5, 10, 20))) == 1


@pytest.mark.parametrize(
    ("moved", "face_mm"), [((6, 10, 20), (30, 20)), ((5, 15, 20), (30, 20)), ((5, 10, 30), (30, 30))]
)
def test_a_shift_of_5_mm_removes_the_faces_perpendicular_to_it(
    moved: tuple[int, int, int], face_mm: tuple[int, int]
) -> None:
    surface = 2 * (30 * 30 + 30 * 20 + 30 * 20)
    a, b = face_mm
    # Each box loses the face that looks away from the other box, the one inside the other box but for a rim of 2 mm,
    # and the 3 mm of its sides that reach beyond the other box by more than the tolerance.
    expected = 1 - (a * b + (a - 4) * (b - 4) + 3 * 2 * (a + b)) / surface
    result = score(box(moved), box((5, 10, 20)))
    assert result == pytest.approx(expected, abs=0.03)
    assert score(box(moved), box((5, 10, 20)), tolerance_mm=5.0) == 1


def test_each_label_has_its_own_score_and_absent_ones_have_none() -> None:
    truth = np.maximum(box((0, 0, 0), value=1), box((13, 30, 40), value=2))
    predicted = np.maximum(box((0, 0, 0), value=1), box((0, 30, 40), value=4))
    scores = by_label(predicted, truth, 5)
    np.testing.assert_array_equal(scores, [1, 0, np.nan, np.nan])
    assert scores.dtype == np.float64


def test_distant_surfaces_have_a_score_of_0() -> None:
    assert score(box((0, 0, 0)), box((13, 30, 40))) == 0


def test_empty_maps_have_no_score() -> None:
    empty = np.zeros((3, 4, 5), np.uint8)
    assert np.isnan(by_label(empty, empty, 3)).all()


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
def test_scores_equal_those_of_monai() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = (
        np.digitize(gaussian_filter(field, 2), (0.02, 0.05)).astype(np.uint8)
        for field in rng.normal(size=(2, 14, 30, 36)) * 0.2 + rng.normal(size=(14, 30, 36))
    )
    one_hot = [
        torch.nn.functional.one_hot(torch.from_numpy(a).long(), 3).movedim(-1, 0)[None] for a in (predicted, truth)
    ]
    for tolerance in (0.0, 1.0, 2.0):
        ours = by_label(predicted, truth, 3, tolerance_mm=tolerance)
        theirs = compute_surface_dice(
            one_hot[0], one_hot[1], class_thresholds=[tolerance] * 2, spacing=SPACING, use_subvoxels=True
        )
        np.testing.assert_allclose(ours, theirs[0].numpy(), rtol=1e-5)
        assert 0 < ours.min() < ours.max() < 1
