"""Folders of models: those bundled with the extension, and the user's own, which outlive its updates."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

USER_MODELS_VARIABLE = "DIFFUSION_SEGMENT_MODELS"
_WITHOUT_HOME = Path("~", ".local", "share", "DiffusionSegment")


def bundled_models_folder() -> Path:
    """The models that come with the extension."""
    return Path(__file__).resolve().parents[2] / "Resources" / "Models"


def user_models_folder() -> Path:
    """The user's own models: $DIFFUSION_SEGMENT_MODELS, else a folder of the platform's user data; may not exist.

    Linux: $XDG_DATA_HOME or ~/.local/share, macOS: ~/Library/Application Support, Windows: %APPDATA%. A user without a
    home directory, as in some containers, has a folder named after the user ID among the temporary files.

    Raises:
        ModuleNotFoundError: platformdirs is not installed, as in Slicer before its first use.
    """
    chosen = os.environ.get(USER_MODELS_VARIABLE)
    return Path(os.path.expanduser(chosen)) if chosen else _user_data_folder() / "models"


def _user_data_folder() -> Path:
    import platformdirs

    try:
        folder = platformdirs.user_data_path("DiffusionSegment", appauthor=False, roaming=True)
    except RuntimeError:
        folder = _WITHOUT_HOME
    if folder.parts[0] != "~":
        return folder
    # Neither HOME nor an entry in the password database: some versions of platformdirs refuse, others keep the tilde.
    home = f"home-{os.getuid()}" if hasattr(os, "getuid") else "home"
    return Path(tempfile.gettempdir(), home, *folder.parts[1:])


def model_folders() -> tuple[Path, ...]:
    """The folders in which models are looked up by name, in this order; without platformdirs the bundled one only."""
    try:
        return bundled_models_folder(), user_models_folder()
    except ModuleNotFoundError:
        return (bundled_models_folder(),)


def installed_descriptions(folders: Iterable[Path] | None = None) -> dict[str, Path]:
    """The model.json of every installed model by the name of its folder; the first of a name takes precedence.

    Hidden folders are skipped: models are written there before they are moved to their name.
    """
    searched = model_folders() if folders is None else folders
    paths = [path for folder in searched for path in sorted(folder.glob("*/model.json"))]
    named: dict[str, Path] = {}
    for path in paths:
        if not path.parent.name.startswith("."):
            named.setdefault(path.parent.name, path)
    return named
