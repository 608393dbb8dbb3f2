"""Checksums that decide whether a scan has to be segmented again: of its bytes, of model and options, of file times."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from ..schema.report import SCHEMA_VERSION
from ..schema.run_options import RESULT_OPTIONS, RunOptions

_LENGTH = 32


def settings_digest(model_json: bytes, options: RunOptions, *, dicom_seg: bool) -> str:
    """A checksum of everything but the scan that decides a result folder.

    model.json contains the checksums of the weights, which are compared when the model is loaded.
    """
    values = {name: getattr(options, name) for name in (*RESULT_OPTIONS, "force", "bodypart")}
    stated = {"schema": SCHEMA_VERSION, "dicom_seg": dicom_seg, "options": values}
    return _digest(model_json, json.dumps(stated, sort_keys=True).encode())


def scan_key(input_sha256: str, settings: str) -> str:
    """The key of a result: equal keys mean equal bytes of the scan, equal weights and equal options."""
    return _digest(input_sha256.encode(), settings.encode())


def content_digest(paths: Sequence[Path]) -> str:
    """A checksum of the bytes of all files, whatever their names and order.

    Raises:
        OSError: a file cannot be read.
    """
    parts = []
    for path in paths:
        with open(path, "rb") as file:
            parts.append(hashlib.file_digest(file, "sha256").digest())
    return _digest(*sorted(parts))


def file_stamp(paths: Sequence[Path]) -> str:
    """A checksum of names, sizes and modification times, for which no file is read; empty if a file is missing."""
    try:
        facts = sorted((path.name, status.st_size, status.st_mtime_ns) for path in paths if (status := path.stat()))
    except OSError:
        return ""
    return _digest(json.dumps(facts).encode(errors="replace"))


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:_LENGTH]
