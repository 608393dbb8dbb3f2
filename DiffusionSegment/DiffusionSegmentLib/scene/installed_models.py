"""The models that can be chosen: those that come with the extension, then the user's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from DiffusionSegmentBackend.models.folders import installed_descriptions

from .terminology import ModelDescription, readModelDescription


def installedModels(folders: Iterable[Path] | None = None) -> dict[str, ModelDescription]:
    """Descriptions by the name of their folder, looked for in `folders` (default: all places of models) in that order.

    A damaged description is left out: one bad model of the user's own must not cost him the others.
    """
    found: dict[str, ModelDescription] = {}
    for name, path in installed_descriptions(folders).items():
        with suppress(OSError, ValueError, KeyError, TypeError):
            found[name] = readModelDescription(path)
    return found


def searchModels(models: Mapping[str, ModelDescription], text: str) -> list[str]:
    """Names of the models in which every word of `text` occurs, in whatever case; all of them for no words.

    Words are looked for in name, title, modality and organs, also as SNOMED calls these; the body part is in the title.
    """
    words = text.casefold().split()
    return [name for name, model in models.items() if all(word in _searchable(name, model) for word in words)]


def _searchable(name: str, model: ModelDescription) -> str:
    organs = [text for label in model.labels for text in (label.name, label.title, label.code.meaning)]
    return " ".join((name, model.name, model.title, model.modality, *organs)).casefold()
