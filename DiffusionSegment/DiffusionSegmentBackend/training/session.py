"""What every `train` command does around the training itself: read cases, start the model folder, store weights."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..networks.bodypart import BodyPartRegressor, whole_volume_coordinates
from ..pipeline.description import DESCRIPTION_FILE, ModelDescription, read_description
from ..pipeline.model import find_model, save_network
from .data import Case, find_cases, load_case
from .loop import Budget

TRAINING_FOLDER = "training"


def start_model_folder(folder: Path, *, base: str) -> ModelDescription:
    """The description of the model in `folder`; without one, that of `base` with no networks yet."""
    if not (folder / DESCRIPTION_FILE).is_file():
        source = find_model(base)
        folder.mkdir(parents=True, exist_ok=True)
        raw = json.loads((source / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        raw["networks"], raw["quality"] = {}, {}
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
        case.coordinates = whole_volume_coordinates(regressor, torch.from_numpy(case.image)).numpy()


def store(
    folder: Path,
    name: str,
    network: nn.Module,
    *,
    architecture: dict[str, Any],
    budget: Budget,
    cases: Sequence[Case],
    options: dict[str, Any],
) -> None:
    """Write the weights into the model folder, and beside them how they came about."""
    save_network(folder, name, network, architecture=architecture)
    progress = torch.load(folder / TRAINING_FOLDER / name / "checkpoint.pt", weights_only=True, map_location="cpu")
    record = {
        "network": name,
        "steps_done": progress["step"],
        "training_seconds": round(progress["seconds"]),
        "budget": {k: v for k, v in asdict(budget).items() if v != float("inf")},
        "options": options,
        "cases": [case.name for case in cases],
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    (folder / TRAINING_FOLDER / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
