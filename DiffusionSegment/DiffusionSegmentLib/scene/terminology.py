"""Label definitions of model.json as segments need them: name, colour, SNOMED code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from DiffusionSegmentBackend.schema.model_manifest import CodedTerm, ModelLabel, ModelManifest

_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
_REGION_CONTEXT = "Anatomic codes - DICOM master list"
_NO_CODE = "^^"


@dataclass(frozen=True)
class LabelDefinition:
    """One organ: voxel value, names, colour 0..1, codes; `modifier` is its laterality."""

    value: int
    name: str
    title: str
    colour: tuple[float, float, float]
    category: CodedTerm
    code: CodedTerm
    modifier: CodedTerm | None = None

    @property
    def terminologyEntry(self) -> str:
        """The serialised terminology entry of Slicer."""
        parts = (
            _CONTEXT,
            *map(_serialised, (self.category, self.code, self.modifier)),
            _REGION_CONTEXT,
            _NO_CODE,
            _NO_CODE,
        )
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
    licence: str = ""
    trainingData: str = ""
    quality: Quality | None = None


def readModelDescription(path: Path) -> ModelDescription:
    """Read a model.json, or the one in a folder.

    Raises:
        OSError, ValueError: when it is missing or damaged.
    """
    file = path / "model.json" if path.is_dir() else path
    manifest = ModelManifest.from_json(json.loads(file.read_text(encoding="utf-8")))
    dice = manifest.quality.result_dice if manifest.quality is not None else None
    return ModelDescription(
        name=manifest.name,
        title=manifest.title or manifest.name,
        version=manifest.version,
        modality=manifest.modality,
        labels=tuple(_label(label) for label in manifest.labels),
        licence=manifest.licence or "",
        trainingData=manifest.training_data or "",
        quality=Quality(dice, manifest.quality.cases) if manifest.quality is not None and dice is not None else None,
    )


def modelLabels(definitions: Sequence[LabelDefinition]) -> list[ModelLabel]:
    """The labels of model.json with the names and codes of `definitions`."""
    return [
        ModelLabel(value=label.value, name=label.name, title=label.title, code=label.code, modifier=label.modifier)
        for label in definitions
    ]


def _label(label: ModelLabel) -> LabelDefinition:
    if label.colour is None or label.category is None or label.code is None:
        raise ValueError(f"{label.name} has no colour or no code")
    red, green, blue = (channel / 255.0 for channel in label.colour)
    return LabelDefinition(
        value=label.value,
        name=label.name,
        title=label.title,
        colour=(red, green, blue),
        category=label.category,
        code=label.code,
        modifier=label.modifier,
    )


def _serialised(term: CodedTerm | None) -> str:
    return f"{term.scheme}^{term.value}^{term.meaning}" if term is not None else _NO_CODE
