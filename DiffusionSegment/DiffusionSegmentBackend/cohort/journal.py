"""The journal of a cohort: one line of JSON for each finished scan, so that a cohort can be resumed at any moment."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from ..errors import from_os_error
from ..schema.dataclass_json import SchemaError, from_json, to_json
from .scan import Outcome


def read_journal(path: Path) -> dict[str, Outcome]:
    """The last outcome of each scan; lines that a crash cut short are ignored.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE for a journal that cannot be read.
    """
    outcomes: dict[str, Outcome] = {}
    try:
        with open(path, "rb") as file:
            for line in file:
                try:
                    outcome = from_json(Outcome, json.loads(line))
                except (SchemaError, ValueError, RecursionError):
                    continue
                outcomes[outcome.scan_id] = outcome
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise from_os_error(error, path) from error
    return outcomes


class Journal:
    """Appends outcomes; each line is on the disk when `add` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def __enter__(self) -> Journal:
        try:
            file = open(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "ab+", buffering=0)
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                # After a line that a crash cut short the next one begins on a line of its own.
                if file.read(1) != b"\n":
                    file.write(b"\n")
        except OSError as error:
            raise from_os_error(error, self._path) from error
        self._file = file  # type: ignore[assignment]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()

    def add(self, outcome: Outcome) -> None:
        """Append an outcome.

        Raises:
            DiffusionSegmentError: DISK_FULL or OUTPUT_UNWRITABLE.
        """
        assert self._file is not None
        line = json.dumps(to_json(outcome), separators=(",", ":")) + "\n"
        try:
            self._file.write(line.encode("utf-8", errors="replace"))
            os.fsync(self._file.fileno())
        except OSError as error:
            raise from_os_error(error, self._path) from error
