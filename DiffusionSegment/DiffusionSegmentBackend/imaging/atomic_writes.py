"""Atomic writes of files and folders."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import DiffusionSegmentError, ErrorCode, from_os_error

ATTEMPTS = 20


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder` that replaces it on success, and is deleted otherwise.

    Concurrent writers each leave a complete folder, never files of two.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL; the previous folder is then restored.
    """
    with hidden_folder(folder, folder.parent) as staging, hidden_folder(folder, folder.parent) as retired:
        yield staging
        staging.chmod(0o755)
        for attempt in range(ATTEMPTS):
            if exchanged(staging, folder, retired / str(attempt)):
                return
        raise OSError(errno.EBUSY, "others keep writing to it", str(folder))


def exchanged(staging: Path, folder: Path, retired: Path) -> bool:
    """Replace `folder` by the staged one; False if another writer did so in between."""
    with suppress(FileNotFoundError):  # there is none, or another writer has just moved it
        os.replace(folder, retired)
    try:
        os.replace(staging, folder)
    except OSError:
        if folder.exists():
            return False
        if retired.exists():
            os.replace(retired, folder)
        raise
    return True


@contextmanager
def hidden_folder(folder: Path, parent: Path) -> Iterator[Path]:
    """A temporary hidden folder in `parent`; an OSError is converted to an error about `folder`."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        hidden = Path(tempfile.mkdtemp(prefix=f".{_beginning(folder.name)}.", dir=parent))
    except OSError as error:
        raise from_os_error(error, folder) from error
    try:
        yield hidden
    except OSError as error:
        raise from_os_error(error, folder) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _beginning(name: str) -> str:
    """A prefix of a name that leaves space for a suffix: names have at most 255 bytes, characters up to four."""
    return name[:40]


def check_writable(folder: Path) -> None:
    """Check that files can be written to a folder.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise DiffusionSegmentError(
                ErrorCode.OUTPUT_UNWRITABLE, f"{folder} is a file, not a folder.", hint="Choose another output folder."
            )
        existing = folder if folder.exists() else folder.parent
        existing.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"\0" * 4096)
    except OSError as error:
        raise from_os_error(error, folder) from error


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """A hidden file beside `path` that replaces it on success, and is deleted otherwise.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL; an older file stays as it was.
    """
    # A unique name, because of concurrent writers of the same file.
    partial = path.with_name(f".{_beginning(path.name)}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise from_os_error(error, path) from error
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8 atomically; surrogates, as in undecodable file names, become '?'.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL; an older file stays as it was.
    """
    with staged_file(path) as partial:
        partial.write_bytes(text.encode("utf-8", errors="replace"))
