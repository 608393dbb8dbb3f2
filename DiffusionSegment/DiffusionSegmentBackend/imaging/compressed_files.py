"""Reading of files that may be compressed, as detected by their content."""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

GZIP_MAGIC = b"\x1f\x8b"
_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "zlib": lambda: zlib.decompressobj(wbits=47),
    "bzip2": bz2.BZ2Decompressor,
}


def open_decompressed(path: Path) -> BinaryIO:
    """Open a file for reading, decompressed if it is a gzip stream.

    Raises:
        OSError: the file cannot be opened.
    """
    file = open(path, "rb")  # noqa: SIM115, the caller closes it
    magic = file.read(len(GZIP_MAGIC))
    file.seek(0)
    if magic != GZIP_MAGIC:
        return file
    file.close()
    return cast(BinaryIO, gzip.open(path, "rb"))


def first_bytes(path: Path, count: int) -> bytes:
    """The first `count` bytes of a file, decompressed; fewer if the file is shorter or damaged.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read(count + 65536)
    if not data.startswith(GZIP_MAGIC):
        return data[:count]
    try:
        return zlib.decompressobj(wbits=31).decompress(data, count)
    except zlib.error:
        return b""


def inflated(data: bytes, encoding: str, count: int) -> bytes:
    """The first `count` bytes that `data` decompresses to; `encoding` is gzip, zlib or bzip2.

    Raises:
        ValueError: the data are damaged, or there are fewer bytes.
    """
    pieces: list[bytes] = []
    missing = count
    while missing > 0:
        decompressor = _DECOMPRESSORS[encoding]()
        try:
            piece = decompressor.decompress(data, missing)
        except (zlib.error, OSError) as error:
            raise ValueError("its compressed voxels are damaged") from error
        pieces.append(piece)
        missing -= len(piece)
        # A compressed file may consist of several streams.
        data = decompressor.unused_data if decompressor.eof else b""
        if missing > 0 and not data:
            raise ValueError("it was cut short: voxels are missing")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
