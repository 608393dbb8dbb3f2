"""Where models lie: those that come with the extension, and the user's own, which outlive its updates."""

from __future__ import annotations

import os
import sys
from pathlib import Path

USER_MODELS_VARIABLE = "DIFFUSION_SEGMENT_MODELS"


def bundled_models_folder() -> Path:
    """The models that come with the extension."""
    return Path(__file__).resolve().parents[1] / "Resources" / "Models"


def user_models_folder() -> Path:
    """The user's own models: $DIFFUSION_SEGMENT_MODELS, else a folder of the platform's place for data; may not exist.

    Linux: $XDG_DATA_HOME or ~/.local/share, macOS: ~/Library/Application Support, Windows: %APPDATA%.
    """
    chosen = os.environ.get(USER_MODELS_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        place = Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    elif sys.platform == "darwin":
        place = Path.home() / "Library" / "Application Support"
    else:
        place = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return place / "DiffusionSegment" / "models"


def model_folders() -> tuple[Path, ...]:
    """Where a model is looked for by its name, in this order."""
    return bundled_models_folder(), user_models_folder()
