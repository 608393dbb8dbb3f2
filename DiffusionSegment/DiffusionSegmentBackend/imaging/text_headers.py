"""What the text headers of NRRD and MetaImage have in common: lines, counts and numbers, each checked before use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path


class NotAVolume(ValueError):
    """An image that has not three axes of space; the text says what it has."""


_LONGEST_HEADER = 4_000_000
_MOST_AXES = 16
_COUNT = re.compile(r"[1-9]\d{0,8}")
_NUMBER = re.compile(r"[-+]?(?:\d{1,40}\.?\d{0,40}|\.\d{1,40})(?:[eE][-+]?\d{1,4})?")
_LARGEST = 1e9


def header_lines(path: Path) -> Iterator[tuple[str, int]]:
    """The lines of a text header without their ends, and the offset in bytes of what follows each.

    Raises:
        ValueError: the header is longer than any.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        while raw := file.readline(_LONGEST_HEADER + 1):
            if file.tell() > _LONGEST_HEADER:
                raise ValueError("its header does not end")
            yield raw.rstrip(b"\r\n").decode("utf-8", errors="surrogateescape"), file.tell()


def counts(text: str, expected: int) -> list[int]:
    """So many whole numbers above zero.

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
        ValueError: it is no number, or too large.
    """
    axes = counts(text, 1)[0]
    if axes > _MOST_AXES:
        raise ValueError("it has too many axes")
    return axes


def numbers(name: str, words: list[str], expected: int) -> list[float]:
    """So many decimal numbers of the field `name`.

    Raises:
        ValueError: a word is none, or one of a size that no scan has.
    """
    if len(words) == expected and all(map(_NUMBER.fullmatch, words)):
        found = [float(word) for word in words]
        if max(map(abs, found), default=0.0) <= _LARGEST:
            return found
    raise ValueError(f"{name} is damaged")
