"""Where models lie: those that come with the extension, and the user's own, which outlive its updates."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

USER_MODELS_VARIABLE = "DIFFUSION_SEGMENT_MODELS"


def bundled_models_folder() -> Path:
    """The models that come with the extension."""
    return Path(__file__).resolve().parents[2] / "Resources" / "Models"


def user_models_folder() -> Path:
    """The user's own models: $DIFFUSION_SEGMENT_MODELS, else a folder of the platform's place for data; may not exist.

    Linux: $XDG_DATA_HOME or ~/.local/share, macOS: ~/Library/Application Support, Windows: %APPDATA%. A user without a
    home, as in some containers, has a folder of that number among the temporary files.
    """
    chosen = os.environ.get(USER_MODELS_VARIABLE)
    if chosen:
        return Path(os.path.expanduser(chosen))
    if sys.platform == "win32":
        place = Path(os.environ.get("APPDATA") or _home() / "AppData" / "Roaming")
    elif sys.platform == "darwin":
        place = _home() / "Library" / "Application Support"
    else:
        place = Path(os.environ.get("XDG_DATA_HOME") or _home() / ".local" / "share")
    return place / "DiffusionSegment" / "models"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        # Neither HOME nor an entry in the table of users.
        return Path(tempfile.gettempdir()) / (f"home-{os.getuid()}" if hasattr(os, "getuid") else "home")


def model_folders() -> tuple[Path, ...]:
    """Where a model is looked for by its name, in this order."""
    return bundled_models_folder(), user_models_folder()


def installed_descriptions(folders: Iterable[Path] | None = None) -> dict[str, Path]:
    """The model.json of every installed model by the name of its folder; the first of a name is the one that counts.

    What is hidden is left out: a model is written there before it moves to its place.
    """
    places = model_folders() if folders is None else folders
    found = [path for folder in places for path in sorted(folder.glob("*/model.json"))]
    named: dict[str, Path] = {}
    for path in found:
        if not path.parent.name.startswith("."):
            named.setdefault(path.parent.name, path)
    return named
