"""A look at the text header of NRRD and MetaImage before ITK reads it.

ITK's readers copy such fields into buffers of fixed size and trust counts and numbers; a damaged or wicked header ends
the whole process there, or holds it up for ever, where no error can be caught. Only headers that are plain in these
respects are let through.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

_HEADER_BYTES = 1_000_000
_MAGIC_BYTES = 4000
_LONGEST_FIELD = 500
_MOST_AXES = 16
_COUNT = re.compile(r"[1-9]\d{0,8}")
_NUMBER = re.compile(r"[-+]?(?:\d{1,40}\.?\d{0,40}|\.\d{1,40})(?:[eE][-+]?\d{1,4})?")
_LARGEST = 1e6  # mm, a kilometre
_NRRD_NUMBERS = {"space directions", "space origin", "spacings"}
_META_AXES = {"Offset", "Position", "Origin", "CenterOfRotation", "ElementSpacing", "ElementSize"}
_META_SQUARES = {"TransformMatrix", "Rotation", "Orientation"}


def check_text_header(path: Path) -> None:
    """Refuse a NRRD or MetaImage header that ITK cannot be trusted with; any other file is not looked at.

    Raises:
        ValueError: with what is wrong.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(_HEADER_BYTES)
    if head.startswith(b"NRRD"):
        _check_nrrd(head, path)
    elif b"NDims" in head[:_MAGIC_BYTES] or path.suffix.lower() in (".mha", ".mhd"):
        _check_meta(head, path)


def _check_nrrd(head: bytes, path: Path) -> None:
    known: dict[str, str] = {}
    for line in _lines(head, ends_after=lambda line: not line.strip()):
        name, colon, value = line.partition(":")
        # A comment, or one of the key/value pairs, which may be long.
        if line.startswith("#") or value.startswith("="):
            continue
        _demand(len(line) <= _LONGEST_FIELD, "a field is too long")
        _demand(not colon or name.lower() not in known, f"{name[:40]} stands there twice")
        known[name.lower()] = value.strip()
    axes = _counts(known.get("dimension", ""), 1)[0]
    _demand(axes <= _MOST_AXES, "it has too many axes")
    _counts(known.get("sizes", ""), axes)
    for name in _NRRD_NUMBERS & set(known):
        words = [word for word in re.split(r"[\s(),]+", known[name]) if word not in ("", "none")]
        _check_numbers(name, words, len(words))
    for name in ("data file", "datafile"):
        if name in known:
            _check_beside(known[name], path)


def _check_meta(head: bytes, path: Path) -> None:
    known: dict[str, str] = {}
    for line in _lines(head, ends_after=lambda line: line.replace(" ", "").startswith("ElementDataFile=")):
        name, equals, value = (part.strip() for part in line.partition("="))
        _demand(len(line) <= _LONGEST_FIELD, "a field is too long")
        _demand(not equals or name not in known, f"{name[:40]} stands there twice")
        known[name] = value
    axes = _counts(known.get("NDims", ""), 1)[0]
    _demand(axes <= _MOST_AXES, "it has too many axes")
    _counts(known.get("DimSize", ""), axes)
    for name, value in known.items():
        expected = axes if name in _META_AXES else axes * axes if name in _META_SQUARES else None
        if expected is not None:
            _check_numbers(name, value.split(), expected)
    data = known.get("ElementDataFile", "")
    if data.upper() != "LOCAL":
        _check_beside(data, path)


def _lines(head: bytes, *, ends_after: Callable[[str], bool]) -> Iterator[str]:
    """The header's lines up to and with the last."""
    for raw in head.split(b"\n"):
        line = raw.rstrip(b"\r").decode("latin-1")
        yield line
        if ends_after(line):
            return


def _counts(text: str, expected: int) -> list[int]:
    words = text.split()
    _demand(len(words) == expected and all(map(_COUNT.fullmatch, words)), "its sizes are damaged")
    return [int(word) for word in words]


def _check_numbers(name: str, words: list[str], expected: int) -> None:
    """ITK turns directions with huge numbers in them for ever."""
    fit = len(words) == expected and all(_NUMBER.fullmatch(word) and abs(float(word)) <= _LARGEST for word in words)
    _demand(fit, f"{name} is damaged")


def _check_beside(name: str, path: Path) -> None:
    """The values may lie in one plain file in the same folder: a stranger's header names no others."""
    plain = bool(name) and not set(name) & set("/\\:%\0") and not name.startswith(".")
    _demand(plain and (path.parent / name).is_file(), "its values should lie in one file beside it")


def _demand(condition: object, what: str) -> None:
    if not condition:
        raise ValueError(what)
