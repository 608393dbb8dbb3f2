"""What the training scans show of the body, as limits of the anatomy check in model.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.networks.bodypart import BodyPartRegressor
from DiffusionSegmentBackend.training.session import store_body_range


def case(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Case:
    """A scan (z, y, x) with an organ; `spacing` in mm along x, y, z."""
    image = np.zeros(shape, np.float32)
    labels = np.zeros(shape, np.uint8)
    labels[4:8, 4:8, 4:8] = 1
    return Case("case", image, labels, model_grid(Volume(image, np.diag([*spacing, 1.0])), spacing=spacing))


def test_the_range_of_heights_and_twice_the_longest_side_are_stored(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"anatomy": {"min_organ_ml": 3.0, "max_side_mm": 1}}', encoding="utf-8")
    torch.manual_seed(0)
    cases = [case((16, 24, 32), (1.0, 1.0, 2.5)), case((32, 16, 16), (1.0, 1.0, 2.5))]
    store_body_range(tmp_path, cases, BodyPartRegressor([8, 8], stride=2).eval())
    anatomy = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))["anatomy"]
    assert set(anatomy) == {"min_organ_ml", "body_z_mm", "max_side_mm"}
    assert anatomy["max_side_mm"] == 2 * 32 * 2.5
    low, high = anatomy["body_z_mm"]
    assert low <= high
