"""A private folder for the volumes of one session, and the removal of folders of ended sessions."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

_PREFIX = "diffusionsegment-"


def createSessionFolder() -> Path:
    """Create a folder that only its owner can read; its name contains the process id."""
    removeStaleFolders()
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))


def removeStaleFolders() -> None:
    """Remove session folders whose process has ended."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        match = re.match(rf"{_PREFIX}(\d+)-", folder.name)
        if match and not _processExists(int(match.group(1))):
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
    """On Windows `os.kill(pid, 0)` would end the process; a handle can be opened only while it runs."""
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
