"""The result of a run on disk: all files or none, and nothing of an earlier result beside them.

PyTorch and SimpleITK are imported where maps are written, so that an output folder is checked before they are loaded.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .buffers import from_os_error
from .errors import DiffusionSegmentError, ErrorCode

if TYPE_CHECKING:
    from .pipeline.segment import Segmentation
    from .volume import Volume

SEGMENTATION = "segmentation.nii.gz"
UNCERTAINTY = "uncertainty.nii.gz"
MUTUAL_INFORMATION = "mutual_information.nii.gz"
REGIONS = "regions.nii.gz"
BODYPART = "bodypart.nii.gz"
CORRECTIONS = "corrections.nii.gz"
SESSION = "session.zip"
ALTERNATIVES = "alternatives"
PROBABILITIES = "probabilities"
REPORT = "report.json"
_ATTEMPTS = 20
_MAP = ".nii.gz"
# What file managers leave in a folder that its user believes to be empty.
_LEFT_BY_SYSTEMS = {"Thumbs.db", "desktop.ini"}

_log = logging.getLogger(__name__)

# Seconds by stage of the pipeline -> seconds by stage of the whole run, asked for when the maps are written.
Timings = Callable[[Mapping[str, float]], dict[str, float]]


@dataclass(frozen=True)
class OutputKind:
    """What a command writes into a folder.

    `files` are the names of all files that it may write, `folders` those of folders in which it writes NIfTI files. A
    folder in which `record`, a JSON object, has all `keys` is an earlier output of the same kind, which a new one may
    replace; without a `record` no folder is.
    """

    title: str
    files: frozenset[str]
    record: str | None = None
    keys: frozenset[str] = frozenset()
    folders: frozenset[str] = frozenset()


RESULT = OutputKind(
    "result of `segment` or `correct`",
    frozenset({SEGMENTATION, UNCERTAINTY, MUTUAL_INFORMATION, REGIONS, BODYPART, CORRECTIONS, SESSION, REPORT}),
    REPORT,
    frozenset({"organs", "review", "provenance"}),
    frozenset({ALTERNATIVES, PROBABILITIES}),
)

FEATURES = OutputKind(
    "features of `features`",
    frozenset({"features.npz", "features.json"}),
    "features.json",
    frozenset({"software", "model", "sha256", "levels"}),
)
SIMILARITY = OutputKind(
    "map of `similar`",
    frozenset({"similarity.nii.gz", "region.nii.gz", "similarity.json"}),
    "similarity.json",
    frozenset({"software", "model", "sha256", "point_lps_mm"}),
)
# Names that a data set has too: no folder of such files is taken for an earlier phantom.
PHANTOM = OutputKind("", frozenset({"ct.nii.gz", "labels.nii.gz"}))


def check_replaceable(folder: Path, kind: OutputKind, *, overwrite: bool = False) -> None:
    """Check that `folder` can be written and holds no files but those of an earlier output of the same kind.

    Hidden files count as none. With `overwrite` other files may be there; they are left alone.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL.
    """
    check_writable(folder)
    if overwrite or not _visible_names(folder) or _is_earlier_output(folder, kind):
        return
    raise DiffusionSegmentError(
        ErrorCode.OUTPUT_UNWRITABLE,
        f"{folder} holds files{', but no ' if kind.title else ''}{kind.title}.",
        hint="Choose another folder, or add --overwrite: files of the same names are replaced, all others are kept.",
    )


def _visible_names(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".") and name not in _LEFT_BY_SYSTEMS]
    except OSError:
        # It does not exist yet, or may be written and not be listed.
        return []


def _is_earlier_output(folder: Path, kind: OutputKind) -> bool:
    if kind.record is None:
        return False
    try:
        record = json.loads((folder / kind.record).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and kind.keys <= record.keys()


def recorded_passes(folder: Path) -> int:
    """How often the refiner passed over the scan of a result: its samples times their steps; 0 if that is not known."""
    try:
        provenance = json.loads((folder / REPORT).read_text(encoding="utf-8"))["provenance"]
        return int(provenance["samples"]) * int(provenance["steps"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return 0


@contextmanager
def staged_folder(folder: Path, kind: OutputKind = RESULT) -> Iterator[Path]:
    """A hidden folder whose files become those of `folder` when all went well, and vanish otherwise.

    They replace all files of that `kind` in it; other files are left alone. A folder that holds nothing else is
    replaced as a whole, so that it never has files of two outputs. In others the files are moved one by one, the
    `kind`'s record as the last; when one cannot be moved, the earlier ones are put back.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL; `folder` is then as it was.
    """
    beside = folder.parent if not folder.is_dir() or _is_replaceable_whole(folder, kind) else folder
    with _hidden_folder(folder, beside) as staging, _hidden_folder(folder, beside) as retired:
        yield staging
        _deliver(staging, folder, retired, kind)


def _is_replaceable_whole(folder: Path, kind: OutputKind) -> bool:
    """Whether nobody misses the folder itself: it holds files of the kind alone, and no process or disk depends on it.

    A shell whose working directory was moved away would stay in the old one.
    """
    if folder.is_symlink() or os.path.ismount(folder) or not os.access(folder.parent, os.W_OK):
        return False
    try:
        here = Path.cwd()
        if folder.resolve() in (here, *here.parents):
            return False
        with os.scandir(folder) as entries:
            return all(_is_of_kind(entry, kind) for entry in entries)
    except FileNotFoundError:
        # Another writer has just retired it.
        return True
    except PermissionError:
        return False


def _is_of_kind(entry: os.DirEntry[str], kind: OutputKind) -> bool:
    if entry.is_dir(follow_symlinks=False) and entry.name in kind.folders:
        with os.scandir(entry.path) as maps:
            return all(one.is_file(follow_symlinks=False) and one.name.endswith(_MAP) for one in maps)
    return entry.name in kind.files and entry.is_file(follow_symlinks=False)


def _deliver(staging: Path, folder: Path, retired: Path, kind: OutputKind) -> None:
    """Move the staged files to their folder."""
    for attempt in range(_ATTEMPTS):
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        if folder.is_dir() and not _is_replaceable_whole(folder, kind):
            _exchange_files(staging, folder, retired, kind)
            return
        staging.chmod(_mode_of(folder))
        if _exchanged(staging, folder, retired / str(attempt)):
            return
    raise OSError(errno.EBUSY, "others keep writing to it", str(folder))


def _mode_of(folder: Path) -> int:
    """The permissions of a folder, or those of a new one."""
    try:
        return stat.S_IMODE(folder.stat().st_mode)
    except FileNotFoundError:
        return 0o755


def _exchange_files(staging: Path, folder: Path, retired: Path, kind: OutputKind) -> None:
    """Replace the files of the kind in a folder that holds others too; all of them or none."""
    kept = retired / "files"
    record = Path(kind.record or "")
    fresh = sorted(_files_below(staging), key=lambda path: (path == record, path))
    old = sorted({*_earlier_files(folder, kind), *fresh}, key=lambda path: (path != record, path))
    placed: list[Path] = []
    try:
        for path in old:
            if (folder / path).is_symlink() or (folder / path).is_file():
                _move(folder / path, kept / path)
        for path in fresh:
            _move(staging / path, folder / path)
            placed.append(path)
    except BaseException:
        for path in placed:
            (folder / path).unlink(missing_ok=True)
        for path in _files_below(kept):
            _move(kept / path, folder / path)
        raise
    for name in kind.folders:
        with suppress(OSError):  # of others' files, or none at all
            (folder / name).rmdir()


def _earlier_files(folder: Path, kind: OutputKind) -> set[Path]:
    """What an earlier output may have left in a folder, and links in the place of its folders."""
    inside = {path.relative_to(folder) for name in kind.folders for path in (folder / name).glob(f"*{_MAP}")}
    linked = {Path(name) for name in kind.folders if (folder / name).is_symlink()}
    return {Path(name) for name in kind.files} | {path for path in inside if path.parent not in linked} | linked


def _files_below(folder: Path) -> list[Path]:
    """All files and links below a folder, relative to it; none where there is no folder."""
    return [path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder` that takes its place as a whole when all went well, and vanishes otherwise.

    Of several that do so at once each leaves a whole folder, never files of two.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL; what was there before is then there again.
    """
    with _hidden_folder(folder, folder.parent) as staging, _hidden_folder(folder, folder.parent) as retired:
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
def _hidden_folder(folder: Path, parent: Path) -> Iterator[Path]:
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


def write_result(
    result: Segmentation, index_to_lps: np.ndarray, folder: Path, *, timings: Timings | None = None
) -> None:
    """Write the maps as NIfTI and report.json into `folder`, in which they replace an earlier result.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL; nothing is left half-written.
    """
    _log.info("write %s", folder)
    with staged_folder(folder) as staging:
        write_maps(result, index_to_lps, staging, timings=timings)


def write_maps(
    result: Segmentation, index_to_lps: np.ndarray, staging: Path, *, timings: Timings | None = None
) -> None:
    """Write the files of a result into a staging folder.

    report.json is written as the last; with `timings` its `timings_s`, also in `result`, are those of the whole run.
    """
    from .volume import Volume

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
    if timings is not None:
        result.report["timings_s"] = timings(result.report["timings_s"])
    (staging / REPORT).write_text(json.dumps(result.report, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_map(volume: Volume, path: Path) -> None:
    """Write a map of a scan where every reader of NIfTI finds it: on a straight grid where the scan is sheared.

    Raises:
        DiffusionSegmentError: as `write_volume`.
    """
    from .imaging.shear import straightened
    from .volume_io import write_volume

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
