"""The simulated reader that follows the list of regions to review."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentResearch.studies import correction
from DiffusionSegmentResearch.studies.correction import within_look

SHAPE = (20, 40, 40)


def patient(*centroids: tuple[float, float, float]) -> Any:
    """A scan of 2 x 2 x 4 mm that begins at (10, 20, 30) mm, with regions at `centroids`."""
    index_to_lps = np.array([[2.0, 0, 0, 10], [0, 2, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]])
    regions = [SimpleNamespace(centroid_lps_mm=centroid) for centroid in centroids]
    return correction._Patient(
        Volume(np.zeros(SHAPE, np.float32), index_to_lps),
        np.zeros(SHAPE, np.uint8),
        cast(Any, None),
        cast(Any, SimpleNamespace(report=SimpleNamespace(review=regions))),
    )


def test_a_look_is_a_ball_of_20_mm_around_the_position_of_a_region() -> None:
    ball = patient((10 + 2 * 20, 20 + 2 * 10, 30 + 4 * 5)).look(0)
    assert ball is not None
    assert ball.centre == (5, 10, 20)
    assert ball.box == (slice(0, 11), slice(0, 21), slice(10, 31))
    assert patient().look(0) is None


def test_errors_outside_a_look_are_not_shown_to_the_reader() -> None:
    truth, labels = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    labels[5, 10, 20] = labels[18, 38, 38] = 3
    shown = within_look(labels, truth, patient((50, 40, 50)).look(0))
    assert shown[5, 10, 20] == 3
    assert np.count_nonzero(shown) == 1
    assert not within_look(labels, truth, None).any()


def test_an_error_below_a_tenth_of_a_millilitre_is_not_corrected() -> None:
    someone, labels = patient(), np.zeros(SHAPE, np.uint8)
    labels[5, 10, 10:16] = 2
    assert not correction._scribble_on_largest_error(labels, someone, "slice", np.random.default_rng(0)).any()
    labels[5, 10, 10:17] = 2
    scribbles = correction._scribble_on_largest_error(labels, someone, "slice", np.random.default_rng(0))
    assert np.count_nonzero(scribbles == 1) == 7
