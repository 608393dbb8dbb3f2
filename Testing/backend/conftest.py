"""A small trained model for tests of the pipeline: the bundled one, and phantoms to run it on."""

from __future__ import annotations

import pytest
from DiffusionSegmentBackend.phantom import make_phantom
from DiffusionSegmentBackend.pipeline.model import Model, load_model
from DiffusionSegmentBackend.volume import Volume


@pytest.fixture(scope="session")
def model() -> Model:
    return load_model("abdomen-ct", "cpu")


@pytest.fixture(scope="session")
def phantom_ct() -> Volume:
    phantom = make_phantom(seed=3, spacing_mm=(3.0, 3.0, 3.0))
    return Volume(phantom.image, phantom.index_to_lps)
