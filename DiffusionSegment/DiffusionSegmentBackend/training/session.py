"""Steps of the `train` commands around the training loop: load cases, create the model folder, store weights."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..datasets.labelled_cases import Case, find_cases, load_case, load_scan, scan_paths
from ..models.folders import bundled_models_folder
from ..models.manifest import DESCRIPTION_FILE, ModelDescription, find_model, read_description, read_manifest
from ..models.model import save_network, write_description
from ..networks.bodypart import BodyPartRegressor, whole_volume_coordinates
from .loop import CHECKPOINT_FILE, Budget
from .new_model import new_description

TRAINING_FOLDER = "training"


def start_model_folder(folder: Path, *, base: str, licence: str = "") -> ModelDescription:
    """The description of the model in `folder`, which is created with labels and grid of `base` if it does not exist.

    `base` is a model, or a manifest (a model.json without networks).

    Raises:
        DiffusionSegmentError: MODEL_UNKNOWN or WEIGHTS_CORRUPT for a model or a manifest that is missing or damaged.
    """
    if not (folder / DESCRIPTION_FILE).is_file():
        manifest = Path(base)
        own = manifest.suffix == ".json" and manifest.resolve().parent != bundled_models_folder().parent / "Manifests"
        source = model_source(folder, base=base)
        folder.mkdir(parents=True, exist_ok=True)
        raw = new_description(source, folder_name=folder.resolve().name, own=own, licence=licence)
        (folder / DESCRIPTION_FILE).write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
    return read_description(folder)


def model_source(folder: Path, *, base: str) -> ModelDescription:
    """The description in `folder` if there is one, else that of `base`.

    Raises:
        DiffusionSegmentError: As for `start_model_folder`.
    """
    if (folder / DESCRIPTION_FILE).is_file():
        return read_description(folder)
    manifest = Path(base)
    return read_manifest(manifest) if manifest.suffix == ".json" else read_description(find_model(base))


def record_training_data(folder: Path, network: str, text: str) -> None:
    """Record the training data of a network in model.json; networks are named if their data differ."""
    raw = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    by_network = {**raw.get("training_data_by_network", {}), network: text}
    texts = list(dict.fromkeys(by_network.values()))
    named = [f"{'/'.join(n for n, other in by_network.items() if other == one)}: {one}" for one in texts]
    raw["training_data"] = texts[0] if len(texts) == 1 else "; ".join(named)
    write_description(folder, {**raw, "training_data_by_network": by_network})


def load_cases(data: Sequence[Path], description: ModelDescription, *, part: str = "train") -> list[Case]:
    """Load all cases of the folders onto the model's grid.

    Raises:
        DiffusionSegmentError: TRAINING_DATA with the name of the case.
    """
    files = [case for folder in data for case in find_cases(folder, part=part)]
    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(lambda f: load_case(f, description), files))


def add_coordinates(cases: Sequence[Case], regressor: BodyPartRegressor) -> None:
    """Compute the body coordinates of each case in mm on the whole scan."""
    for case in cases:
        coordinates = whole_volume_coordinates(regressor, torch.from_numpy(case.image))
        case.coordinates = coordinates.numpy().astype(np.float16)


def load_scans(folders: Sequence[Path], description: ModelDescription) -> list[Case]:
    """Load all scans without labels in the folders (`scan_paths`)."""
    paths = scan_paths(folders)
    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(lambda path: load_scan(path, description), paths))


def store_body_range(folder: Path, cases: Sequence[Case], regressor: BodyPartRegressor) -> None:
    """Store what the training scans show of the body in the limits of the anatomy check in model.json.

    These are the range of body heights of the organs (percentiles 1 to 99), and twice the longest side.
    """
    heights = []
    for case in cases:
        height = whole_volume_coordinates(regressor, torch.from_numpy(case.image))[2].numpy()
        heights.append(np.percentile(height[case.labels > 0], np.arange(101)))
    low, high = np.percentile(np.concatenate(heights), [1, 99])
    raw = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    limits = {"body_z_mm": [round(float(low), 1), round(float(high), 1)], "max_side_mm": round(2 * _longest_mm(cases))}
    raw["anatomy"] = {**raw.get("anatomy", {}), **limits}
    write_description(folder, raw)


def _longest_mm(cases: Sequence[Case]) -> float:
    """The longest side of all cases in mm, each cropped to the body."""
    sides = (zip(case.image.shape, reversed(case.grid.spacing), strict=True) for case in cases)
    return max(float(n * step) for side in sides for n, step in side)


def store(
    folder: Path,
    name: str,
    network: nn.Module,
    *,
    architecture: Mapping[str, object],
    budget: Budget,
    cases: Sequence[str],
    options: Mapping[str, object],
    checkpoints: Path,
) -> None:
    """Store weights in the model folder, and a record of the training next to them; `cases` are names."""
    save_network(folder, name, network, architecture=dict(architecture))
    progress = torch.load(checkpoints / CHECKPOINT_FILE, weights_only=True, map_location="cpu")
    record = {
        "network": name,
        "steps_done": progress["step"],
        "training_seconds": round(progress["seconds"]),
        "budget": {k: v for k, v in asdict(budget).items() if v != float("inf")},
        "options": dict(options),
        "cases": list(cases),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    path = folder / TRAINING_FOLDER / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
