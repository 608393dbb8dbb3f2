"""Voxels of a text header (NRRD, MetaImage): in the same file, in a separate one, or in one per slice.

An untrusted header can only name files below its own folder, never devices or other folders.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compressed_files import inflated

_MAX_FILES = 100_000
_PATTERN = re.compile(r"[^%]*%0?(\d{0,2})d[^%]*")
_TOKEN = re.compile(rb"\S+")


@dataclass(frozen=True, kw_only=True)
class VoxelLayout:
    """Storage of voxels in each file.

    `encoding` is raw, ascii, hex, gzip, zlib or bzip2. The first `skipped_lines` lines, then `skipped_bytes` bytes are
    skipped; -1 skips everything before the voxels at the end. `dtype` includes the byte order.
    """

    dtype: np.dtype
    encoding: str
    skipped_lines: int = 0
    skipped_bytes: int = 0


def read_voxels(files: Sequence[tuple[Path, int]], count: int, layout: VoxelLayout) -> NDArray[Any]:
    """`count` values from files, each with an offset in bytes and an equal part; memory-mapped if possible.

    Raises:
        ValueError: with what is wrong with the files.
        OSError: a file cannot be read.
    """
    if count % len(files):
        raise ValueError(f"its {count} voxels cannot lie in {len(files)} files of the same size")
    share = count // len(files)
    if len(files) == 1:
        return _native(_values(*files[0], share, layout))
    result = np.empty(count, dtype=layout.dtype.newbyteorder("="))
    for number, (path, offset) in enumerate(files):
        result[number * share : (number + 1) * share] = _values(path, offset, share, layout)
    return result


def _native(values: NDArray[Any]) -> NDArray[Any]:
    """The values in native byte order, without a copy if they already are."""
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))


def _values(path: Path, offset: int, count: int, layout: VoxelLayout) -> NDArray[Any]:
    size = count * layout.dtype.itemsize
    start = offset + _line_bytes(path, offset, layout.skipped_lines)
    if layout.encoding == "raw":
        start = path.stat().st_size - size if layout.skipped_bytes < 0 else start + layout.skipped_bytes
        if start < offset or path.stat().st_size - start < size:
            raise ValueError(f"{path.name} was cut short: voxels are missing")
        return np.memmap(path, dtype=layout.dtype, mode="r", offset=start, shape=(count,))
    with open(path, "rb") as file:
        file.seek(start)
        data = file.read()
    if layout.encoding == "ascii":
        return _numbers(data, count, layout)
    if layout.encoding == "hex":
        digits = b"".join(_TOKEN.findall(data))[: 2 * size]
        return np.frombuffer(_exactly(bytes.fromhex(digits.decode("ascii")), size), dtype=layout.dtype)
    if layout.skipped_bytes < 0:
        raise ValueError("it skips to the end of compressed voxels")
    # Of compressed files, lines are skipped before and bytes after decompression (NRRD's definition).
    data = inflated(data, layout.encoding, size + layout.skipped_bytes)[layout.skipped_bytes :]
    return np.frombuffer(_exactly(data, size), dtype=layout.dtype)


def _line_bytes(path: Path, offset: int, lines: int) -> int:
    """Length of the first lines after the offset."""
    with open(path, "rb") as file:
        file.seek(offset)
        return sum(len(file.readline()) for _ in range(lines))


def _exactly(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise ValueError("it was cut short: voxels are missing")
    return data[:size]


def _numbers(data: bytes, count: int, layout: VoxelLayout) -> NDArray[Any]:
    words = data.split(maxsplit=count)[:count]
    if len(words) < count:
        raise ValueError("it was cut short: voxels are missing")
    numbers = np.array([float(word) for word in words])
    if layout.dtype.kind in "iu":
        limits = np.iinfo(layout.dtype)
        if not np.all((numbers >= limits.min) & (numbers <= limits.max) & (numbers == np.round(numbers))):
            raise ValueError("its voxels do not fit their type")
    return numbers.astype(layout.dtype)


def file_beside(name: str, header: Path) -> Path:
    """The file of voxels that a header names, in its own folder or below it.

    Raises:
        ValueError: the name leads elsewhere, or there is no such file.
    """
    name = name.strip()
    plain = PurePosixPath(name.replace("\\", "/"))
    if not name or "\0" in name or plain.is_absolute() or ".." in plain.parts or PureWindowsPath(name).drive:
        raise ValueError("it does not name its voxels' file in its own folder")
    path = header.parent / plain
    if not path.is_file():
        raise ValueError(f"its voxels' file {name} is not there")
    return path


def files_of_pattern(text: str, header: Path) -> list[Path]:
    """The files of "slice%03d.raw 1 41 1": a pattern, the first and last number, and the step.

    Raises:
        ValueError: this is no such pattern, or a file is missing.
    """
    pattern, *numbers = text.split()
    if not _PATTERN.fullmatch(pattern) or len(numbers) not in (3, 4):
        raise ValueError("it names its voxels' files by a pattern that is not understood")
    try:
        first, last, step = (int(word) for word in numbers[:3])
        named = range(first, last + (1 if step > 0 else -1), step)
    except ValueError as error:
        raise ValueError("it names its voxels' files by a pattern that is not understood") from error
    if not 0 < len(named) <= _MAX_FILES or min(named) < 0:
        raise ValueError("it names no files, or far too many")
    return [file_beside(pattern % number, header) for number in named]
