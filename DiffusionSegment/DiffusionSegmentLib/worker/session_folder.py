"""A private folder for the volumes of one session, and the sweeping of those that dead sessions left."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

_PREFIX = "diffusionsegment-"


def createSessionFolder() -> Path:
    """A new folder, readable by its owner alone, that names the process it belongs to."""
    sweepStaleFolders()
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))


def sweepStaleFolders() -> None:
    """Remove session folders whose process is gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        found = re.match(rf"{_PREFIX}(\d+)-", folder.name)
        if found and not _processExists(int(found.group(1))):
            shutil.rmtree(folder, ignore_errors=True)


def _processExists(pid: int) -> bool:
    if sys.platform == "win32":
        return _windowsProcessExists(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _windowsProcessExists(pid: int) -> bool:
    """`os.kill(pid, 0)` would end the process on Windows; a handle to it opens only while it lives."""
    import ctypes

    queryLimitedInformation, stillActive = 0x1000, 259
    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
    handle = kernel.OpenProcess(queryLimitedInformation, False, pid)
    if not handle:
        return False
    status = ctypes.c_ulong()
    kernel.GetExitCodeProcess(handle, ctypes.byref(status))
    kernel.CloseHandle(handle)
    return status.value == stillActive
