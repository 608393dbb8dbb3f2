"""Output folders: all files of a new output replace those of an earlier one, or none does."""

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
# Files of file managers in folders that look empty.
_LEFT_BY_SYSTEMS = {"Thumbs.db", "desktop.ini"}


def check_replaceable(folder: Path, kind: OutputKind, *, overwrite: bool = False) -> None:
    """Check that `folder` is writable and contains only files of an earlier output of the same kind.

    Hidden files are ignored. With `overwrite` other files are allowed; they are not changed.

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
        # It does not exist yet, or cannot be listed.
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
    """A hidden folder whose files are moved to `folder` on success, and deleted otherwise.

    They replace all files of that `kind`; other files are not changed. A folder without other files is replaced as a
    whole, so that it never has files of two outputs. Otherwise the files are moved one by one, the record of the `kind`
    last; if one cannot be moved, the earlier ones are restored.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL; `folder` is then as it was.
    """
    beside = folder.parent if not folder.is_dir() or _is_replaceable_whole(folder, kind) else folder
    with hidden_folder(folder, beside) as staging, hidden_folder(folder, beside) as retired:
        yield staging
        _replace(staging, folder, retired, kind)


def _is_replaceable_whole(folder: Path, kind: OutputKind) -> bool:
    """Whether the folder itself can be replaced: it contains only files of the kind, and is not in use.

    A shell in a replaced working directory would stay in the old one.
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
        # Another writer has just moved it.
        return True
    except PermissionError:
        return False


def _is_of_kind(entry: os.DirEntry[str], kind: OutputKind) -> bool:
    if entry.is_dir(follow_symlinks=False) and entry.name in kind.folders:
        with os.scandir(entry.path) as maps:
            return all(one.is_file(follow_symlinks=False) and one.name.endswith(_MAP) for one in maps)
    return entry.name in kind.files and entry.is_file(follow_symlinks=False)


def _replace(staging: Path, folder: Path, retired: Path, kind: OutputKind) -> None:
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
    moved: list[Path] = []
    try:
        for path in old:
            if (folder / path).is_symlink() or (folder / path).is_file():
                _move(folder / path, kept / path)
        for path in fresh:
            _move(staging / path, folder / path)
            moved.append(path)
    except BaseException:
        for path in moved:
            (folder / path).unlink(missing_ok=True)
        for path in _files_below(kept):
            _move(kept / path, folder / path)
        raise
    for name in kind.folders:
        with suppress(OSError):  # not empty, or missing
            (folder / name).rmdir()


def _earlier_files(folder: Path, kind: OutputKind) -> set[Path]:
    """Files that an earlier output may have written to a folder, and links instead of its folders."""
    inside = {path.relative_to(folder) for name in kind.folders for path in (folder / name).glob(f"*{_MAP}")}
    linked = {Path(name) for name in kind.folders if (folder / name).is_symlink()}
    return {Path(name) for name in kind.files} | {path for path in inside if path.parent not in linked} | linked


def _files_below(folder: Path) -> list[Path]:
    """All files and links below a folder, relative to it; none where there is no folder."""
    return [path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)
