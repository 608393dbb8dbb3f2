"""A whole model of untrained, very small networks on a coarse grid, so that a run of the pipeline takes a moment."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from DiffusionSegmentBackend.networks.backbone import Backbone
from DiffusionSegmentBackend.networks.bodypart import BodyPartRegressor
from DiffusionSegmentBackend.networks.probe import Probe
from DiffusionSegmentBackend.networks.refiner import Refiner
from DiffusionSegmentBackend.phantom import make_phantom
from DiffusionSegmentBackend.pipeline.model import find_model, save_network
from DiffusionSegmentBackend.volume import Volume

NAME = "tiny"
CHANNELS = [4, 4]
CLASSES = 4
SPACING_MM = (12.0, 12.0, 12.0)


def write_tiny_model(models: Path, *, name: str = NAME) -> Path:
    """Write the model into a folder of models; its three labels are the first of abdomen-ct."""
    folder = models / name
    folder.mkdir(parents=True, exist_ok=True)
    raw = json.loads((find_model("abdomen-ct") / "model.json").read_text(encoding="utf-8"))
    raw.update(name=name, title="Tiny", networks={}, channels=CHANNELS, spacing_mm=list(SPACING_MM), quality={})
    raw.update(labels=raw["labels"][: CLASSES - 1], anatomy={"least_organ_ml": 0.0, "least_confidence": 0.0})
    raw["defaults"] = {**raw["defaults"], "samples": 1, "steps": 1}
    (folder / "model.json").write_text(json.dumps(raw), encoding="utf-8")
    torch.manual_seed(0)
    bodypart = {"channels": CHANNELS, "stride": 2}
    backbone = {"channels": CHANNELS}
    probe = {"channels": CHANNELS, "classes": CLASSES, "hidden": 8}
    refiner = {"feature_channels": CHANNELS, "classes": CLASSES, "channels": CHANNELS}
    save_network(folder, "bodypart", BodyPartRegressor(**bodypart), architecture=bodypart)
    save_network(folder, "backbone", Backbone(**backbone), architecture=backbone)
    save_network(folder, "probe", _decided(Probe(**probe)), architecture=probe)
    save_network(folder, "refiner", Refiner(**refiner), architecture=refiner)
    return folder


def _decided(probe: Probe) -> Probe:
    """Untrained logits are all alike; stronger ones make a label map with parts that can be compared."""
    with torch.no_grad():
        probe.head.weight.mul_(40.0)
    return probe


def coarse_phantom(seed: int = 3) -> Volume:
    """A synthetic abdomen of 12 mm voxels."""
    phantom = make_phantom(seed=seed, spacing_mm=SPACING_MM)
    return Volume(np.asarray(phantom.image), phantom.index_to_lps)
