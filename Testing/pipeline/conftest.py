"""A segmentation of the phantom with the bundled weights, shared by the tests of the pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.models.model import Model
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.segment import Segmentation, segment
from fixtures.correction_cases import write_models


@pytest.fixture(scope="session")
def result(model: Model, phantom_ct: Volume) -> Segmentation:
    return segment(phantom_ct, model, SegmentOptions(samples=2, steps=1, seed=5, bodypart=True))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model of each of `correction_cases.GENERATIONS`."""
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder
