"""Measures of a study by case, kept in a folder, from which an interrupted study resumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.atomic_writes import write_text

# What a study measures on a case: numbers and text in lists and objects, as in JSON.
Measures = dict[str, Any]


@dataclass(frozen=True)
class MeasuresByCase:
    """A file for each case in `folder`; None for no folder.

    `key` holds everything that determines the measures of a case: model, settings, crop. A file with another key is
    measured again.
    """

    folder: Path | None
    key: str

    def get(self, case: str, measure: Callable[[], Measures]) -> Measures:
        """The stored measures of a case, or those of `measure`, which are then stored.

        Raises:
            DiffusionSegmentError: INPUT_UNREADABLE for a damaged file, OUTPUT_UNWRITABLE, DISK_FULL.
        """
        if self.folder is None:
            return measure()
        path = self.folder / f"{case}.json"
        stored = _read(path)
        if stored.get("key") == self.key:
            return dict(stored["measures"])
        measures = measure()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"key": self.key, "measures": measures}, indent=1) + "\n")
        # Read again, so that both ways give the same types.
        return dict(_read(path)["measures"])


def _read(path: Path) -> dict[str, Any]:
    """The content of a file; empty if it does not exist."""
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE, f"{path} holds no measures of a case.", hint="Delete the file."
        ) from error
