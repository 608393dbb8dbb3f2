"""What every `train` command does around the training itself: read cases, start the model folder, store weights."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..networks.bodypart import BodyPartRegressor, whole_volume_coordinates
from ..pipeline.description import DESCRIPTION_FILE, ModelDescription, read_description, read_manifest
from ..pipeline.model import find_model, save_network, write_description
from .data import Case, find_cases, load_case, load_scan, scan_paths
from .loop import CHECKPOINT_FILE, Budget

TRAINING_FOLDER = "training"


def start_model_folder(folder: Path, *, base: str) -> ModelDescription:
    """The description of the model in `folder`; without one, that of `base` with no networks yet.

    `base` is a model, or a manifest: a file that is a model.json without networks.

    Raises:
        DiffusionSegmentError: MODEL_UNKNOWN or WEIGHTS_CORRUPT for a model or a manifest that is missing or damaged.
    """
    if not (folder / DESCRIPTION_FILE).is_file():
        manifest = Path(base)
        source = read_manifest(manifest) if manifest.suffix == ".json" else read_description(find_model(base))
        folder.mkdir(parents=True, exist_ok=True)
        raw = {**source.raw, "networks": {}, "quality": {}}
        (folder / DESCRIPTION_FILE).write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
    return read_description(folder)


def load_cases(data: Sequence[Path], description: ModelDescription, *, part: str = "train") -> list[Case]:
    """All cases of the folders on the model's grid.

    Raises:
        DiffusionSegmentError: TRAINING_DATA, naming the case.
    """
    files = [case for folder in data for case in find_cases(folder, part=part)]
    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(lambda f: load_case(f, description), files))


def add_coordinates(cases: Sequence[Case], regressor: BodyPartRegressor) -> None:
    """Fill in each case's body coordinates in mm, computed once on the whole scan."""
    for case in cases:
        found = whole_volume_coordinates(regressor, torch.from_numpy(case.image))
        case.coordinates = found.numpy().astype(np.float16)


def load_scans(places: Sequence[Path], description: ModelDescription) -> list[Case]:
    """All scans without labels in the folders (`scan_paths`)."""
    paths = scan_paths(places)
    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(lambda path: load_scan(path, description), paths))


def store_body_range(folder: Path, cases: Sequence[Case], regressor: BodyPartRegressor) -> None:
    """Write into model.json at which heights of the body, percentiles 1 to 99, the organs of the training scans lie."""
    heights = []
    for case in cases:
        found = whole_volume_coordinates(regressor, torch.from_numpy(case.image))[2].numpy()
        heights.append(np.percentile(found[case.labels > 0], np.arange(101)))
    low, high = np.percentile(np.concatenate(heights), [1, 99])
    raw = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    raw.setdefault("anatomy", {})["body_z_mm"] = [round(float(low), 1), round(float(high), 1)]
    write_description(folder, raw)


def store(
    folder: Path,
    name: str,
    network: nn.Module,
    *,
    architecture: dict[str, Any],
    budget: Budget,
    cases: Sequence[str],
    options: dict[str, Any],
    checkpoints: Path,
) -> None:
    """Write the weights into the model folder, and beside them how they came about; `cases` are names."""
    save_network(folder, name, network, architecture=architecture)
    progress = torch.load(checkpoints / CHECKPOINT_FILE, weights_only=True, map_location="cpu")
    record = {
        "network": name,
        "steps_done": progress["step"],
        "training_seconds": round(progress["seconds"]),
        "budget": {k: v for k, v in asdict(budget).items() if v != float("inf")},
        "options": options,
        "cases": list(cases),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    place = folder / TRAINING_FOLDER / f"{name}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
