"""A tiny installed base model and a small labelled phantom, for tests of teaching and of user models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from DiffusionSegmentBackend.networks.backbone import Backbone
from DiffusionSegmentBackend.networks.bodypart import BodyPartRegressor
from DiffusionSegmentBackend.networks.probe import Probe
from DiffusionSegmentBackend.phantom import make_phantom
from DiffusionSegmentBackend.pipeline.model import find_model, save_network
from DiffusionSegmentBackend.training.teaching import TaughtCase
from DiffusionSegmentBackend.volume import Volume

CHANNELS = [8, 8, 16]
BASE = "tiny-base"


def install_base(models: Path, *, seed: int = 0, version: str = "1.0.0") -> Path:
    """An untrained model with the labels of abdomen-ct, without a refiner, in a folder of models."""
    folder = models / BASE
    folder.mkdir(parents=True, exist_ok=True)
    raw = json.loads((find_model("abdomen-ct") / "model.json").read_text(encoding="utf-8"))
    raw.update(name=BASE, title="Tiny base", version=version, networks={}, channels=CHANNELS, spacing_mm=[5.0] * 3)
    raw["anatomy"] = {}
    (folder / "model.json").write_text(json.dumps(raw), encoding="utf-8")
    torch.manual_seed(seed)
    narrow = {"channels": [8, 8], "stride": 2}
    save_network(folder, "bodypart", BodyPartRegressor([8, 8], 2), architecture=narrow)
    save_network(folder, "backbone", Backbone(CHANNELS), architecture={"channels": CHANNELS})
    shape = {"channels": CHANNELS, "classes": 14, "hidden": 8}
    save_network(folder, "probe", Probe(CHANNELS, 14, hidden=8), architecture=shape)
    return folder


def labelled_phantom(seed: int = 3) -> TaughtCase:
    """A synthetic abdomen of 6 mm voxels with its organs."""
    phantom = make_phantom(seed=seed, spacing_mm=(6.0, 6.0, 6.0))
    return TaughtCase(Volume(phantom.image, phantom.index_to_lps), np.asarray(phantom.labels))
