"""Tolerant access to the values of DICOM headers."""

from __future__ import annotations

import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import pydicom.config
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.tag import BaseTag, Tag

# A change of character set within a text (ISO/IEC 2022); pydicom leaves those of ISO 2022 IR 58, Chinese, in it.
_ESCAPE = re.compile(r"\x1b[ -/]*[0-~]")
# Raised by pydicom on damaged headers, in which values can have any type.
DAMAGE = (
    AttributeError,
    BytesLengthException,
    EOFError,
    IndexError,
    InvalidDicomError,
    LookupError,
    NotImplementedError,
    OSError,
    OverflowError,
    RecursionError,
    TypeError,
    UnicodeError,
    ValueError,
    struct.error,
    zlib.error,
)


@contextmanager
def lenient() -> Iterator[None]:
    """Let pydicom read values that the standard forbids, without warnings."""
    settings = pydicom.config.settings
    reading, writing = settings.reading_validation_mode, settings.writing_validation_mode
    settings.reading_validation_mode = settings.writing_validation_mode = pydicom.config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        settings.reading_validation_mode, settings.writing_validation_mode = reading, writing


def first_item(header: Dataset, name: str) -> Dataset:
    """The first item of a sequence; an empty data set where there is none."""
    sequence = header.get(name) if _tag(name) in header else None
    return sequence[0] if isinstance(sequence, Sequence) and len(sequence) else Dataset()


@cache
def _tag(name: str) -> BaseTag:
    return Tag(name)


def text(header: Dataset, name: str, *, damaged: str = "") -> str:
    """A value as text, several joined by a backslash; empty without any, `damaged` if it cannot be read."""
    tag = _tag(name)
    if tag not in header:
        return ""
    try:
        value = header[tag].value
    except DAMAGE:
        return damaged
    if value is None:
        return ""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return _plain(value)
    return "\\".join(_plain(part) for part in value)


def _plain(value: object) -> str:
    return _ESCAPE.sub("", str(value)).strip(" \0")


def number(header: Dataset, name: str, default: float | None) -> float | None:
    """A finite number; `default` without any.

    Raises:
        ValueError: the value is not a finite number.
    """
    values = numbers(header, name, 1)
    if values is None and text(header, name, damaged="?"):
        raise ValueError(f"has no usable {name}")
    return default if values is None else values[0]


def numbers(header: Dataset, name: str, count: int) -> tuple[float, ...] | None:
    """`count` finite numbers; None if the header does not have exactly as many."""
    words = text(header, name).split("\\")
    try:
        values = tuple(float(word) for word in words)
    except ValueError:
        return None
    return values if len(values) == count and all(map(math.isfinite, values)) else None


def whole_number(header: Dataset, name: str, low: int, high: int, *, default: int | None = None) -> int:
    """A whole number within `low` and `high`.

    Raises:
        ValueError: there is none.
    """
    value = number(header, name, default)
    if value is None or value != int(value) or not low <= value <= high:
        raise ValueError(f"has no usable {name}")
    return int(value)
