"""Result files of the studies: small JSON with everything that is needed to repeat them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
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
# Texts that are written into the file by hand.
_BY_HAND = {"answer": "Not summed up yet.", "claims": [], "shortfalls": []}

# Case -> organ -> Dice 0..1; None for an organ that the case does not show.
OrganScores = dict[str, dict[str, float | None]]


@dataclass
class StudyRow:
    """One row of a table: scores by case and organ, other numbers, and its position `x` in a series of the plot."""

    name: str
    dice: OrganScores | None = None
    surface_dice: OrganScores | None = None
    numbers: dict[str, float] = field(default_factory=dict)
    x: float | None = None
    series: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields that have a value."""
        raw = {key: value for key, value in self.__dict__.items() if value is not None}
        if not raw["numbers"]:
            del raw["numbers"]
        return raw


@dataclass(frozen=True, kw_only=True)
class PlotAxes:
    """The plot of a study: `y` is "dice", "dice by group" or the name of a number of the rows."""

    x_label: str
    log_x: bool = False
    y: str = "dice"
    y_label: str = "mean Dice"


@dataclass(frozen=True, kw_only=True)
class StudyDescription:
    """The texts of a study for the evidence page.

    Attributes:
        order: position on the page.
        title: heading of the section.
        question: what the study answers.
        protocol: data and measures.
        budget: cost of the trainings.
        reference: name of the row that the others are compared with.
        plot: its axes, None for no plot.
        groups: names of organs by group, for columns of group means.
        pictures: file and caption of each picture.
    """

    order: int
    title: str
    question: str
    protocol: str
    budget: str
    reference: str | None = None
    plot: PlotAxes | None = None
    groups: Mapping[str, Sequence[str]] | None = None
    pictures: Sequence[Mapping[str, str]] | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields that have a value."""
        raw = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        raw["plot"] = None if self.plot is None else asdict(self.plot)
        return {name: value for name, value in raw.items() if value is not None}


@dataclass(frozen=True)
class StudyResult:
    """The rows of a study and its description."""

    rows: Sequence[StudyRow]
    description: StudyDescription


def organ_groups(organs: Sequence[str]) -> dict[str, list[str]] | None:
    """`ORGAN_GROUPS` restricted to `organs`; None where a group would be empty."""
    groups = {name: [o for o in members if o in organs] for name, members in ORGAN_GROUPS.items()}
    return groups if all(groups.values()) else None


def organ_table(values: NDArray[np.float64] | Sequence[float], organs: Sequence[str]) -> dict[str, float | None]:
    """Organ -> value, four decimals, None for NaN."""
    return {o: None if np.isnan(v) else round(float(v), 4) for o, v in zip(organs, values, strict=True)}


def write_study(
    path: Path, rows: Sequence[StudyRow], description: StudyDescription, *, command: str, seed: int = 0
) -> None:
    """Write rows, description and provenance atomically.

    The answer, claims and shortfalls in an existing file, which are written by hand, are kept.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE, DISK_FULL.
    """
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    record = {
        "kind": "evidence",
        "commit": _commit(),
        "hardware": hardware(),
        "command": command,
        "seed": seed,
        **description.as_json(),
        **{key: earlier.get(key, default) for key, default in _BY_HAND.items()},
        "rows": [row.as_json() for row in rows],
    }
    write_text(path, json.dumps(record, indent=1) + "\n")


def hardware() -> str:
    """Device, cores and version of torch, for the provenance."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    return f"{device}, {os.cpu_count()} cores, torch {torch.__version__}"


def _commit() -> str:
    try:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
