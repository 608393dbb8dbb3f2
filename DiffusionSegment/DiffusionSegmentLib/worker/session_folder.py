"""A private folder for the volumes of one session, and the sweeping of those that dead sessions left."""

from __future__ import annotations

import os
import re
import shutil
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
    if os.name == "nt":
        # os.kill(pid, 0) would end the process on Windows; a folder in use cannot be removed there anyway.
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
