"""A lock on the folder of a cohort, so that two runs do not write to it at once."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from ..errors import DiffusionSegmentError, ErrorCode, from_os_error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, which is taken over from a process of this computer that has ended.

    Raises:
        DiffusionSegmentError: BUSY while another run holds it, OUTPUT_UNWRITABLE or DISK_FULL.
    """
    own = {"host": platform.node(), "pid": os.getpid(), "started": psutil.Process().create_time()}
    try:
        _take(path, own)
    except OSError as error:
        raise from_os_error(error, path) from error
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()


def _take(path: Path, own: dict[str, object]) -> None:
    for _ in range(2):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            _remove_if_stale(path)
            continue
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(own, file)
        return
    raise _busy(path, "another run")


def _remove_if_stale(path: Path) -> None:
    """Remove the lock of a process that has ended.

    Raises:
        DiffusionSegmentError: BUSY.
    """
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        host, pid, started = str(holder["host"]), int(holder["pid"]), float(holder["started"])
    except (OSError, ValueError, LookupError, TypeError):
        # Cut short by a crash while it was written.
        path.unlink(missing_ok=True)
        return
    if host != platform.node():
        raise _busy(path, f"a run on the computer {host}")
    with suppress(psutil.NoSuchProcess):
        if abs(psutil.Process(pid).create_time() - started) < 1:
            raise _busy(path, f"process {pid}")
    path.unlink(missing_ok=True)


def _busy(path: Path, holder: str) -> DiffusionSegmentError:
    return DiffusionSegmentError(
        ErrorCode.BUSY,
        f"{path.parent.parent} is in use by {holder}.",
        hint=f"Wait for it; if it has ended, delete {path}.",
    )
