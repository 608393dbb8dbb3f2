"""Common parsers of the text headers of NRRD and MetaImage: lines, counts and numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path


class NotAVolume(ValueError):
    """An image without three spatial axes; the message names its dimension."""


_MAX_HEADER_BYTES = 4_000_000
_MAX_AXES = 16
_COUNT = re.compile(r"[1-9]\d{0,8}")
_NUMBER = re.compile(r"[-+]?(?:\d{1,40}\.?\d{0,40}|\.\d{1,40})(?:[eE][-+]?\d{1,4})?")
_MAX_NUMBER = 1e9
_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")


def header_lines(path: Path) -> Iterator[tuple[str, int]]:
    """The lines of a text header without line ends, and the offset in bytes after each.

    Raises:
        ValueError: the header is too long, or holds control characters.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        while raw := file.readline(_MAX_HEADER_BYTES + 1):
            if file.tell() > _MAX_HEADER_BYTES:
                raise ValueError("its header does not end")
            line = raw.rstrip(b"\r\n")
            if _CONTROL.search(line):
                # Readers end a name or a value there, or do not, and take other fields for it.
                raise ValueError("its header holds control characters")
            yield line.decode("utf-8", errors="surrogateescape"), file.tell()


def counts(text: str, expected: int) -> list[int]:
    """`expected` positive integers.

    Raises:
        ValueError: the text holds anything else.
    """
    words = text.split()
    if len(words) != expected or not all(map(_COUNT.fullmatch, words)):
        raise ValueError("its sizes are damaged")
    return [int(word) for word in words]


def axis_count(text: str) -> int:
    """The number of axes.

    Raises:
        ValueError: it is not a number, or too large.
    """
    axes = counts(text, 1)[0]
    if axes > _MAX_AXES:
        raise ValueError("it has too many axes")
    return axes


def numbers(name: str, words: list[str], expected: int) -> list[float]:
    """`expected` decimal numbers of the field `name`.

    Raises:
        ValueError: a word is not a number, or too large.
    """
    if len(words) == expected and all(map(_NUMBER.fullmatch, words)):
        values = [float(word) for word in words]
        if max(map(abs, values), default=0.0) <= _MAX_NUMBER:
            return values
    raise ValueError(f"{name} is damaged")
