"""Predictions of bundles as label maps."""

from __future__ import annotations

import numpy as np
import pytest
from DiffusionSegmentBackend.presegmenters.monai_bundle import labels_of_channels


def test_one_channel_holds_the_labels() -> None:
    np.testing.assert_array_equal(labels_of_channels(np.array([[[[0.0, 2.0]]]]), background=True), [[[0, 2]]])


@pytest.mark.parametrize(("background", "expected"), [(True, [0, 1, 1]), (False, [1, 2, 0])])
def test_several_channels_are_classes(background: bool, expected: list[int]) -> None:
    channels = np.array([[0.9, 0.2, 0.1], [0.1, 0.8, 0.3]]).reshape(2, 1, 1, 3)
    np.testing.assert_array_equal(labels_of_channels(channels, background=background), [[expected]])
