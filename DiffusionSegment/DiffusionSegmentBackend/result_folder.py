"""The result of a run on disk: all files or none."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from .buffers import from_os_error
from .errors import DiffusionSegmentError, ErrorCode
from .imaging.shear import straightened
from .pipeline.segment import Segmentation
from .volume import Volume
from .volume_io import write_volume

SEGMENTATION = "segmentation.nii.gz"
UNCERTAINTY = "uncertainty.nii.gz"
MUTUAL_INFORMATION = "mutual_information.nii.gz"
REGIONS = "regions.nii.gz"
BODYPART = "bodypart.nii.gz"
CORRECTIONS = "corrections.nii.gz"
REPORT = "report.json"
_ATTEMPTS = 20

_log = logging.getLogger(__name__)


@contextmanager
def staged_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder` whose files move into `folder` when all went well, and vanish otherwise.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL; `folder` is then as it was.
    """
    with _hidden_folder(folder) as staging:
        yield staging
        if not folder.exists():
            staging.chmod(0o755)
            os.replace(staging, folder)
        else:
            for file in sorted(path for path in staging.rglob("*") if not path.is_dir()):
                place = folder / file.relative_to(staging)
                place.parent.mkdir(exist_ok=True)
                os.replace(file, place)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder` that takes its place as a whole when all went well, and vanishes otherwise.

    Of several that do so at once each leaves a whole folder, never files of two.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL; what was there before is then there again.
    """
    with _hidden_folder(folder) as staging, _hidden_folder(folder) as retired:
        yield staging
        staging.chmod(0o755)
        for attempt in range(_ATTEMPTS):
            if _exchanged(staging, folder, retired / str(attempt)):
                return
        raise OSError(errno.EBUSY, "others keep writing to it", str(folder))


def _exchanged(staging: Path, folder: Path, retired: Path) -> bool:
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
def _hidden_folder(folder: Path) -> Iterator[Path]:
    """A new hidden folder beside `folder`, gone at the end; an OSError within becomes an error in words."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        hidden = Path(tempfile.mkdtemp(prefix=f".{_beginning(folder.name)}.", dir=folder.parent))
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


def write_result(result: Segmentation, index_to_lps: np.ndarray, folder: Path) -> None:
    """Write the maps as NIfTI and report.json into `folder`.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL; nothing is left half-written.
    """
    _log.info("write %s", folder)
    with staged_folder(folder) as staging:
        write_maps(result, index_to_lps, staging)


def write_maps(result: Segmentation, index_to_lps: np.ndarray, staging: Path) -> None:
    """Write the files of a result into a staging folder."""
    maps: dict[str, np.ndarray | None] = {
        SEGMENTATION: result.labels,
        UNCERTAINTY: result.uncertainty,
        MUTUAL_INFORMATION: result.mutual_information,
        REGIONS: result.regions,
        BODYPART: result.bodypart,
    }
    for name, array in maps.items():
        if array is not None:
            write_map(Volume(array, index_to_lps), staging / name)
    (staging / REPORT).write_text(json.dumps(result.report, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_map(volume: Volume, path: Path) -> None:
    """Write a map of a scan where every reader of NIfTI finds it: on a straight grid where the scan is sheared.

    Raises:
        DiffusionSegmentError: as `write_volume`.
    """
    write_volume(straightened(volume), path)


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
