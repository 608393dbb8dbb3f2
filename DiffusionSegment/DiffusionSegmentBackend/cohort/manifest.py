"""A list of scans as CSV or JSON lines: a path in each row, and for DICOM optionally a series."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DiffusionSegmentError, ErrorCode

SUFFIXES = (".csv", ".jsonl")
_PATH, _SERIES, _PATIENT = "path", "series", "patient"


@dataclass(frozen=True, kw_only=True)
class ManifestEntry:
    """One row: the path of a scan, resolved against the folder of the manifest, and what it states beside it."""

    path: Path
    series: str | None = None
    patient: str = ""


def read_manifest(path: Path) -> list[ManifestEntry]:
    """The rows of a manifest in their order; columns other than `path`, `series` and `patient` are ignored.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE with the number of the row, INPUT_MISSING.
    """
    try:
        rows = list(_json_rows(path) if path.suffix.lower() == ".jsonl" else _csv_rows(path))
    except FileNotFoundError as error:
        raise DiffusionSegmentError(ErrorCode.INPUT_MISSING, f"{path} does not exist.", hint="Check it.") from error
    except (OSError, UnicodeError, csv.Error) as error:
        raise _unreadable(path, f"({type(error).__name__})") from error
    if not rows:
        raise _unreadable(path, "because it has no rows")
    return [_entry(path, number, row) for number, row in rows]


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if _PATH not in (reader.fieldnames or ()):
            raise _unreadable(path, f"because its first line has no column '{_PATH}'")
        for row in reader:
            yield reader.line_num, row


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _unreadable(path, f"in line {number}, which is no JSON") from error
            if not isinstance(row, dict):
                raise _unreadable(path, f"in line {number}, which is no JSON object")
            yield number, row


def _entry(manifest: Path, number: int, row: dict[str, Any]) -> ManifestEntry:
    values = {name: row.get(name) or "" for name in (_PATH, _SERIES, _PATIENT)}
    if not values[_PATH] or not all(isinstance(value, str) and "\0" not in value for value in values.values()):
        raise _unreadable(manifest, f"in line {number}, which names no path")
    return ManifestEntry(
        path=manifest.parent / values[_PATH], series=values[_SERIES] or None, patient=values[_PATIENT]
    )


def _unreadable(path: Path, why: str) -> DiffusionSegmentError:
    return DiffusionSegmentError(
        ErrorCode.INPUT_UNREADABLE,
        f"{path} cannot be read {why}.",
        hint=f"A manifest is CSV with the column '{_PATH}', or a JSON object with that key on each line.",
    )
