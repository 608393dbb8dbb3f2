"""A private folder that a process leaves behind only until the next one of its kind starts."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil


def process_folder(prefix: str) -> Path:
    """An empty temporary folder of this process that only the user can enter.

    Folders with the same prefix of the user's processes that have ended are deleted.
    """
    for path in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        pid = path.name.removeprefix(prefix).partition("-")[0]
        with suppress(OSError):
            if pid.isdecimal() and path.stat().st_uid == os.getuid() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(path, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))
