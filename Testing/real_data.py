"""Where the real labelled CT lies, if this machine has it; tests and the demo fall back to the phantom without it."""

from __future__ import annotations

import os
from pathlib import Path


def folder() -> Path | None:
    """The data folder: $DIFFUSIONSEGMENT_DATA, else `shared/data` beside the checkout; None without either."""
    named = os.environ.get("DIFFUSIONSEGMENT_DATA")
    candidate = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return candidate if candidate.is_dir() else None
