"""The models that can be chosen: those that come with the extension, then the user's own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from DiffusionSegmentBackend.model_folders import model_folders

from .terminology import ModelDescription, readModelDescription


def installedModels(folders: Iterable[Path] | None = None) -> dict[str, ModelDescription]:
    """Descriptions by the name of their folder, looked for in `folders` (default: all places of models) in that order.

    A damaged description is left out: one bad model of the user's own must not cost him the others. So is what is
    hidden, because a model is written there before it moves to its place.
    """
    found: dict[str, ModelDescription] = {}
    for folder in model_folders() if folders is None else folders:
        for path in sorted(folder.glob("*/model.json")):
            name = path.parent.name
            if name.startswith(".") or name in found:
                continue
            try:
                found[name] = readModelDescription(path)
            except (OSError, ValueError, KeyError, TypeError):
                continue
    return found
