"""Files and folders that are written whole or not at all."""

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
    """A hidden folder beside `folder` that takes its place as a whole when all went well, and vanishes otherwise.

    Of several that do so at once each leaves a whole folder, never files of two.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL; what was there before is then there again.
    """
    with hidden_folder(folder, folder.parent) as staging, hidden_folder(folder, folder.parent) as retired:
        yield staging
        staging.chmod(0o755)
        for attempt in range(ATTEMPTS):
            if exchanged(staging, folder, retired / str(attempt)):
                return
        raise OSError(errno.EBUSY, "others keep writing to it", str(folder))


def exchanged(staging: Path, folder: Path, retired: Path) -> bool:
    """Whether the staged folder is now in its place; it is not when another writer took the place in between."""
    with suppress(FileNotFoundError):  # nothing is there, or another has just retired it
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
    """A new hidden folder in `parent`, gone at the end; an OSError within becomes an error in words about `folder`."""
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
    """So much of a name that a longer one can be made of it: names have 255 bytes at most, a letter up to four."""
    return name[:40]


def check_writable(folder: Path) -> None:
    """Find out before the work starts that the result could not be written.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise DiffusionSegmentError(
                ErrorCode.OUTPUT_UNWRITABLE, f"{folder} is a file, not a folder.", hint="Choose another output folder."
            )
        place = folder if folder.exists() else folder.parent
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"\0" * 4096)
    except OSError as error:
        raise from_os_error(error, folder) from error


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """A hidden file beside `path` that becomes `path` in one move when all went well, and vanishes otherwise.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL; an older file stays as it was.
    """
    # A name of its own: two that write the same file at once must not share one half.
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
    """Write a text file as UTF-8 in one move; bytes of file names that are no letters become '?'.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL; an older file stays as it was.
    """
    with staged_file(path) as partial:
        partial.write_bytes(text.encode("utf-8", errors="replace"))
