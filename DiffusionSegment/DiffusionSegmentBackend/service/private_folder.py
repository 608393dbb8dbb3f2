"""The private folder of the server, empty at its start, whatever happened to the server before."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import DiffusionSegmentError, ErrorCode, from_os_error

_PRIVATE = 0o700
_LOCK = "lock"
SESSION_PREFIX = "session-"


def default_folder(port: int) -> Path:
    """The folder of a server on a port, among the temporary files."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    return Path(tempfile.gettempdir()) / f"diffusionsegment-service-{user}-{port}"


@contextlib.contextmanager
def private_folder(folder: Path) -> Iterator[Path]:
    """Make the folder, remove what a server that was killed left in it, and empty it at the end.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE for a folder that is a link, belongs to someone else, or is used by
            another server.
    """
    try:
        folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        _check_owner(folder)
        os.chmod(folder, _PRIVATE)
    except OSError as error:
        raise from_os_error(error, folder) from error
    with _locked(folder):
        _empty(folder)
        try:
            yield folder
        finally:
            _empty(folder)


def _check_owner(folder: Path) -> None:
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or (hasattr(os, "getuid") and state.st_uid != os.getuid()):
        raise DiffusionSegmentError(
            ErrorCode.OUTPUT_UNWRITABLE, f"{folder} belongs to someone else.", hint="Choose another --work-dir."
        )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of the folder, which the system releases when the process ends, however it ends."""
    try:
        import fcntl
    except ModuleNotFoundError:
        # Windows has none; there the port keeps a second server away.
        yield
        return
    with open(folder / _LOCK, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DiffusionSegmentError(
                ErrorCode.OUTPUT_UNWRITABLE, f"Another server uses {folder}.", hint="Choose another --work-dir."
            ) from error
        yield


def _empty(folder: Path) -> None:
    # Nothing else, for the folder may be one that the administrator has chosen by mistake.
    for path in folder.glob(f"{SESSION_PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)
