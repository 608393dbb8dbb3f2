"""Pseudonyms: HMAC-SHA256 of an identifier under a secret key, which a reader of the tables does not have."""

from __future__ import annotations

import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from ..errors import DiffusionSegmentError, ErrorCode, from_os_error

_KEY_BYTES = 32
_LENGTH = 16


@dataclass(frozen=True)
class Pseudonyms:
    """Pseudonyms under one key; the same identifier of the same kind always has the same one."""

    key: bytes

    def of(self, kind: str, identifier: str) -> str:
        """16 hexadecimal digits; empty for an empty identifier."""
        if not identifier:
            return ""
        text = f"{kind}\0{identifier}".encode("utf-8", errors="surrogateescape")
        return hmac.new(self.key, text, "sha256").hexdigest()[:_LENGTH]


def read_pseudonyms(path: Path) -> Pseudonyms:
    """The pseudonyms under the key in a file, which is created if there is none, readable for its owner alone.

    Raises:
        DiffusionSegmentError: OPTION for a file that is no key, OUTPUT_UNWRITABLE or DISK_FULL.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(secrets.token_hex(_KEY_BYTES) + "\n")
        text = path.read_bytes().strip()
    except OSError as error:
        raise from_os_error(error, path) from error
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) < _KEY_BYTES:
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"{path} is no key for pseudonyms: it does not have {2 * _KEY_BYTES} hexadecimal digits.",
            hint="Give a file that an earlier cohort wrote, or none.",
        )
    return Pseudonyms(key)
