"""Label definitions of model.json as segments need them: name, colour, SNOMED code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
_REGION_CONTEXT = "Anatomic codes - DICOM master list"
_NO_CODE = "^^"


@dataclass(frozen=True)
class Code:
    """A coded term, such as SCT 10200004 Liver."""

    scheme: str
    value: str
    meaning: str

    def __str__(self) -> str:
        return f"{self.scheme}^{self.value}^{self.meaning}"


@dataclass(frozen=True)
class LabelDefinition:
    """One organ: voxel value, names, colour 0..1, codes; `modifier` is its laterality."""

    value: int
    name: str
    title: str
    colour: tuple[float, float, float]
    category: Code
    code: Code
    modifier: Code | None = None

    @property
    def terminologyEntry(self) -> str:
        """The serialised terminology entry of Slicer."""
        modifier = str(self.modifier) if self.modifier else _NO_CODE
        parts = (_CONTEXT, str(self.category), str(self.code), modifier, _REGION_CONTEXT, _NO_CODE, _NO_CODE)
        return "~".join(parts) + "|"


@dataclass(frozen=True)
class Quality:
    """Mean Dice 0..1 of the results of a model on a number of scans that it was not trained on."""

    meanDice: float
    cases: int


@dataclass(frozen=True)
class ModelDescription:
    """What panel and scene need of model.json; texts are empty and `quality` is None where it does not state them."""

    name: str
    title: str
    version: str
    modality: str
    labels: tuple[LabelDefinition, ...]
    raw: dict[str, Any]
    licence: str = ""
    trainingData: str = ""
    quality: Quality | None = None


def readModelDescription(path: Path) -> ModelDescription:
    """Read a model.json, or the one in a folder.

    Raises:
        OSError, ValueError, KeyError: when it is missing or damaged.
    """
    file = path / "model.json" if path.is_dir() else path
    raw = json.loads(file.read_text(encoding="utf-8"))
    return ModelDescription(
        name=raw["name"],
        title=str(raw.get("title") or raw["name"]),
        version=raw["version"],
        modality=raw["modality"],
        labels=tuple(_label(item) for item in raw["labels"]),
        raw=raw,
        licence=str(raw.get("licence") or ""),
        trainingData=str(raw.get("training_data") or ""),
        quality=_quality(raw.get("quality")),
    )


def _quality(value: Any) -> Quality | None:
    """The measured quality of a result (ensemble, else segmenter); user models may not state it."""
    try:
        dice = value["mean_dice"]
        return Quality(float(dice["ensemble"] if "ensemble" in dice else dice["segmenter"]), int(value["cases"]))
    except (KeyError, TypeError, ValueError):
        return None


def _label(item: dict[str, Any]) -> LabelDefinition:
    red, green, blue = (channel / 255.0 for channel in item["colour"])
    return LabelDefinition(
        value=int(item["value"]),
        name=item["name"],
        title=item["title"],
        colour=(red, green, blue),
        category=Code(**item["category"]),
        code=Code(**item["code"]),
        modifier=Code(**item["modifier"]) if "modifier" in item else None,
    )
