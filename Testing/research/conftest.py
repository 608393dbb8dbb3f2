"""A tiny untrained model with every network, in a folder like that of an installed model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from DiffusionSegmentBackend.models.model import find_model, save_network
from DiffusionSegmentBackend.networks.backbone import Backbone
from DiffusionSegmentBackend.networks.bodypart import BodyPartRegressor
from DiffusionSegmentBackend.networks.probe import Probe
from DiffusionSegmentBackend.networks.refiner import Refiner

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
