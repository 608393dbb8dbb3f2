"""A tiny untrained model with every network, in a folder like that of an installed model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from DiffusionSegmentBackend.models.model import Model, find_model, load_model, save_network
from DiffusionSegmentBackend.networks.backbone import Backbone
from DiffusionSegmentBackend.networks.bodypart import BodyPartRegressor
from DiffusionSegmentBackend.networks.probe import Probe
from DiffusionSegmentBackend.networks.refiner import Refiner
from DiffusionSegmentResearch.studies.bakeoff import BakeoffData
from fixtures.small_bakeoff import small_bakeoff_data, use_small_arms
from fixtures.tiny_model import write_tiny_model

CHANNELS = [8, 8, 16]
SPACING_MM = 6.0


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    raw = json.loads((find_model("abdomen-ct") / "model.json").read_text(encoding="utf-8"))
    raw.update(name="tiny", version="1.0.0", networks={}, spacing_mm=[SPACING_MM] * 3, anatomy={})
    (folder / "model.json").write_text(json.dumps(raw), encoding="utf-8")
    torch.manual_seed(0)
    narrow = {"channels": [8, 8], "stride": 2}
    save_network(folder, "bodypart", BodyPartRegressor([8, 8], 2), architecture=narrow)
    save_network(folder, "backbone", Backbone(CHANNELS), architecture={"channels": CHANNELS})
    shape = {"channels": CHANNELS, "classes": 14, "hidden": 8}
    save_network(folder, "probe", Probe(CHANNELS, 14, hidden=8), architecture=shape)
    refiner = Refiner(CHANNELS[:2], 14, channels=(8, 8))
    save_network(folder, "refiner", refiner, architecture=refiner.architecture)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A whole model on a coarse grid."""
    return load_model(str(write_tiny_model(tmp_path_factory.mktemp("models"))), "cpu", precision="float32")


@pytest.fixture
def small_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_arms(monkeypatch)


@pytest.fixture
def data(tmp_path: Path) -> BakeoffData:
    return small_bakeoff_data(tmp_path)
