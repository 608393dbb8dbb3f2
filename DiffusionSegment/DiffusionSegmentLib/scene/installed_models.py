"""The models that can be chosen: those bundled with the extension, then user models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from DiffusionSegmentBackend.models.folders import installed_descriptions

from .terminology import ModelDescription, readModelDescription


def installedModels(folders: Iterable[Path] | None = None) -> dict[str, ModelDescription]:
    """Descriptions of the models in `folders` (default: all model folders) by folder name, in that order.

    Damaged descriptions are skipped, so that one damaged user model does not hide the others.
    """
    models: dict[str, ModelDescription] = {}
    for name, path in installed_descriptions(folders).items():
        with suppress(OSError, ValueError, KeyError, TypeError):
            models[name] = readModelDescription(path)
    return models


def searchModels(models: Mapping[str, ModelDescription], text: str) -> list[str]:
    """Names of the models that contain every word of `text`, ignoring case; all models for an empty text.

    Searched are name, title (with the body part), modality, and the organs with their SNOMED terms.
    """
    words = text.casefold().split()
    return [name for name, model in models.items() if all(word in _searchable(name, model) for word in words)]


def _searchable(name: str, model: ModelDescription) -> str:
    organs = [text for label in model.labels for text in (label.name, label.title, label.code.meaning)]
    return " ".join((name, model.name, model.title, model.modality, *organs)).casefold()
