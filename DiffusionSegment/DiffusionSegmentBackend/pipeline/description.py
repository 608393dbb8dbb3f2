"""model.json: what a model sees, what it names, which networks it consists of, and what was measured."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DiffusionSegmentError, ErrorCode

DESCRIPTION_FILE = "model.json"
NETWORKS = ("bodypart", "backbone", "probe", "refiner")


@dataclass(frozen=True)
class Label:
    """One organ: the voxel value, a machine name, a name for people."""

    value: int
    name: str
    title: str


@dataclass(frozen=True)
class NetworkFile:
    """Weights of one network: file beside model.json, its sha256, and the arguments of its class."""

    file: str
    sha256: str
    architecture: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Defaults:
    """What a run does unless told otherwise; chosen from the measured table."""

    samples: int = 4
    steps: int = 2
    schedule: str = "cosine"
    sampler: str = "ddim"
    abar_start: float = 0.2


@dataclass(frozen=True)
class ModelDescription:
    """The content of model.json. `window` is in HU, `spacing_mm` along x, y, z."""

    name: str
    title: str
    version: str
    modality: str
    spacing_mm: tuple[float, float, float]
    window: tuple[float, float]
    labels: tuple[Label, ...]
    networks: dict[str, NetworkFile]
    defaults: Defaults
    raw: dict[str, Any]
    folder: Path

    @property
    def classes(self) -> int:
        """Number of classes, background included."""
        return len(self.labels) + 1

    def label_named(self, name: str) -> Label:
        """The organ of that name.

        Raises:
            DiffusionSegmentError: OPTION for an organ that the model does not know.
        """
        for label in self.labels:
            if label.name == name:
                return label
        known = ", ".join(label.name for label in self.labels)
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"The model {self.name} has no organ '{name}'.", hint=f"It knows: {known}."
        )


def read_description(folder: Path) -> ModelDescription:
    """Read and check `folder`/model.json.

    Raises:
        DiffusionSegmentError: MODEL_UNKNOWN without the file, WEIGHTS_CORRUPT when its content is not as agreed.
    """
    path = folder / DESCRIPTION_FILE
    if not path.is_file():
        raise DiffusionSegmentError(
            ErrorCode.MODEL_UNKNOWN, f"{folder} holds no {DESCRIPTION_FILE}.", hint="Name a model of `models`."
        )
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return _parse(raw, folder)
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise DiffusionSegmentError(
            ErrorCode.WEIGHTS_CORRUPT,
            f"{path} is damaged ({type(error).__name__}: {error}).",
            hint="Install the model again.",
        ) from error


def _parse(raw: dict[str, Any], folder: Path) -> ModelDescription:
    labels = tuple(Label(int(i["value"]), str(i["name"]), str(i["title"])) for i in raw["labels"])
    if [label.value for label in labels] != list(range(1, len(labels) + 1)):
        raise ValueError("label values must be 1, 2, 3, ...")
    x, y, z = (float(v) for v in raw["spacing_mm"])
    low, high = (float(v) for v in raw["window"])
    if min(x, y, z) <= 0 or not low < high:
        raise ValueError("spacing_mm and window must be positive")
    networks = {
        str(key): NetworkFile(str(n["file"]), str(n["sha256"]), dict(n.get("architecture", {})))
        for key, n in raw.get("networks", {}).items()
    }
    if any("/" in n.file or "\\" in n.file or n.file.startswith(".") for n in networks.values()):
        raise ValueError("network files lie beside model.json")
    return ModelDescription(
        name=str(raw["name"]),
        title=str(raw["title"]),
        version=str(raw["version"]),
        modality=str(raw["modality"]),
        spacing_mm=(x, y, z),
        window=(low, high),
        labels=labels,
        networks=networks,
        defaults=Defaults(**raw.get("defaults", {})),
        raw=raw,
        folder=folder,
    )
