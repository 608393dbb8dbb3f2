"""An output folder gets all files of a new output or none, and keeps nothing of an earlier one beside them."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import DiffusionSegmentError, ErrorCode
from ..schema.output_kinds import RESULT, OutputKind
from .atomic_writes import ATTEMPTS, check_writable, exchanged, hidden_folder

_MAP = ".nii.gz"
# What file managers leave in a folder that its user believes to be empty.
_LEFT_BY_SYSTEMS = {"Thumbs.db", "desktop.ini"}


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
    with hidden_folder(folder, beside) as staging, hidden_folder(folder, beside) as retired:
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
    for attempt in range(ATTEMPTS):
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        if folder.is_dir() and not _is_replaceable_whole(folder, kind):
            _exchange_files(staging, folder, retired, kind)
            return
        staging.chmod(_mode_of(folder))
        if exchanged(staging, folder, retired / str(attempt)):
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
