"""A segmentation of the phantom with the bundled weights, shared by the tests of the pipeline."""

from __future__ import annotations

import pytest
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.models.model import Model
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.segment import Segmentation, segment


@pytest.fixture(scope="session")
def result(model: Model, phantom_ct: Volume) -> Segmentation:
    return segment(phantom_ct, model, SegmentOptions(samples=2, steps=1, seed=5, bodypart=True))
