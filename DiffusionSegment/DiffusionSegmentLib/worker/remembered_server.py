"""Address and token of a server in a file that only the user can read, kept only where the user asks for it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from DiffusionSegmentBackend.errors import DiffusionSegmentError, from_os_error
from DiffusionSegmentBackend.protocol.connection import ServerConnection, read_connection, write_connection

SERVER_FILE = "DiffusionSegmentServer.json"
_PRIVATE = 0o600


def readServer(path: Path) -> ServerConnection | None:
    """The remembered server; None where there is none, or its file is damaged."""
    try:
        return read_connection(path.read_bytes())
    except (OSError, DiffusionSegmentError):
        return None


def writeServer(path: Path, connection: ServerConnection) -> None:
    """Remember a server.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        # Private from the first moment on; Windows keeps it in the user's profile instead.
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE), "wb") as file:
            file.write(write_connection(connection))
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise from_os_error(error, path) from error


def forgetServer(path: Path) -> None:
    """Delete the file."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
