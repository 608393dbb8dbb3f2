"""A model folder of the second generation with very small untrained networks, and a phantom for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from DiffusionSegmentBackend.networks.bodypart import BodyPartRegressor
from DiffusionSegmentBackend.networks.segmenter import Segmenter
from DiffusionSegmentBackend.phantom import Phantom, make_phantom
from DiffusionSegmentBackend.pipeline.model import find_model, save_network
from DiffusionSegmentBackend.volume import Volume

NAME = "tiny-segmenter"
CHANNELS = [8, 16, 16]
CLASSES = 4
STRIDE = (1, 2, 2)
SPACING_MM = (6.0, 6.0, 12.0)
TRUNK_SPACING_MM = (12.0, 12.0, 12.0)
# Along x, y, z: 16 voxels of the trunk a side.
TILE_VOXELS = [32, 32, 16]


def write_segmenter_model(models: Path, *, name: str = NAME, **described: Any) -> Path:
    """Write the model into a folder of models; its labels are the first of abdomen-ct. `described` goes to model.json.

    The fine path, which begins as zero, has weights: the grid of 6 mm holds more than the trunk's of 12 mm.
    """
    folder = models / name
    folder.mkdir(parents=True, exist_ok=True)
    raw = json.loads((find_model("abdomen-ct") / "model.json").read_text(encoding="utf-8"))
    raw.update(name=name, title="Tiny segmenter", networks={}, channels=CHANNELS, quality={}, tile_voxels=TILE_VOXELS)
    raw.update(spacing_mm=list(SPACING_MM), trunk_spacing_mm=list(TRUNK_SPACING_MM))
    raw.update(labels=raw["labels"][: CLASSES - 1], anatomy={"least_organ_ml": 0.0, "least_confidence": 0.0})
    raw.update(described)
    (folder / "model.json").write_text(json.dumps(raw), encoding="utf-8")
    torch.manual_seed(0)
    bodypart = {"channels": [4, 4], "stride": 2}
    save_network(folder, "bodypart", BodyPartRegressor([4, 4], 2), architecture=bodypart)
    network = Segmenter(CLASSES, channels=CHANNELS, stride=STRIDE, fine_channels=8)
    with torch.no_grad():
        network.head.weight.mul_(20.0)
        assert network.fine is not None
        network.fine.head.weight.normal_(std=2.0)
    save_network(folder, "segmenter", network, architecture=network.architecture)
    return folder


def anisotropic_phantom(seed: int = 3) -> Phantom:
    """A synthetic upper belly of 7 x 7 x 9 mm voxels, larger than a tile along each axis."""
    return make_phantom(seed=seed, spacing_mm=(7.0, 7.0, 9.0), size_mm=(392.0, 280.0, 270.0))


def scan_of(phantom: Phantom) -> Volume:
    """Its image alone."""
    return Volume(np.asarray(phantom.image), phantom.index_to_lps)
