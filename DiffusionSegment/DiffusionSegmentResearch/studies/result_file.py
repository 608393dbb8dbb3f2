"""Result files of the studies: small JSON with everything that is needed to run them again."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from DiffusionSegmentBackend.imaging.atomic_writes import write_text
from numpy.typing import NDArray

ORGAN_GROUPS = {
    "big": ["liver", "spleen", "right_kidney", "left_kidney", "stomach"],
    "medium": ["aorta", "inferior_vena_cava", "pancreas", "portal_and_splenic_vein"],
    "small": ["gallbladder", "esophagus", "right_adrenal_gland", "left_adrenal_gland"],
}


@dataclass
class StudyRow:
    """One line of a table: Dice by case and organ, and further numbers."""

    name: str
    dice: dict[str, dict[str, float | None]] | None = None
    surface_dice: dict[str, dict[str, float | None]] | None = None
    numbers: dict[str, float] = field(default_factory=dict)
    x: float | None = None
    series: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Without what is not there."""
        raw = {key: value for key, value in self.__dict__.items() if value is not None}
        if not raw["numbers"]:
            del raw["numbers"]
        return raw


def organ_table(values: NDArray[np.float64] | Sequence[float], organs: Sequence[str]) -> dict[str, float | None]:
    """Organ -> value, four decimals, None for NaN."""
    return {o: None if np.isnan(v) else round(float(v), 4) for o, v in zip(organs, values, strict=True)}


def write_study(path: Path, rows: Sequence[StudyRow], **described: Any) -> None:
    """Write the rows with the study's description (title, question, ... as the evidence page wants them) in one move.

    An answer, claims and shortfalls that a person wrote into an earlier file of this name are kept.
    """
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    spoken = {"answer": "Not summed up yet.", "claims": [], "shortfalls": []}
    kept = {key: earlier.get(key, described.get(key, default)) for key, default in spoken.items()}
    record = {
        "kind": "evidence",
        "commit": _commit(),
        "hardware": hardware(),
        **described,
        **kept,
        "rows": [row.as_json() for row in rows],
    }
    write_text(path, json.dumps(record, indent=1) + "\n")


def hardware() -> str:
    """Device, threads and library, for the provenance line."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    return f"{device}, {os.cpu_count()} cores, torch {torch.__version__}"


def _commit() -> str:
    try:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
