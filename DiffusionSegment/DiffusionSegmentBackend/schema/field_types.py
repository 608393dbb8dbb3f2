"""Whether the values of a message have the types that its dataclass declares (standard library only)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

_PLAIN: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str) and _is_text(value),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300,
    "bool": lambda value: isinstance(value, bool),
    "dict[str, Any]": lambda value: isinstance(value, dict),
    "None": lambda value: value is None,
}


def check_types(kind: type[Any], values: Mapping[str, Any]) -> None:
    """Compare the values with the fields of the dataclass `kind`; a field that is left out is not looked at.

    Raises:
        TypeError: a value is of another type, is NaN or infinite, or is text that no file name could hold.
    """
    for item in fields(kind):
        if item.name in values and not _fits(str(item.type), values[item.name]):
            raise TypeError(f"{item.name} is no {item.type}")


def finite_number(text: str) -> float:
    """The number that JSON text names.

    Raises:
        ValueError: it is NaN, infinite, or larger than any float.
    """
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no number to work with")
    return number


def _fits(declared: str, value: Any) -> bool:
    for name in declared.split(" | "):
        if name in _PLAIN:
            fits = _PLAIN[name](value)
        elif name.startswith("tuple["):
            part = _PLAIN[name.removeprefix("tuple[").removesuffix(", ...]")]
            fits = isinstance(value, tuple) and all(part(item) for item in value)
        else:
            fits = type(value).__name__ == name
        if fits:
            return True
    return False


def _is_text(value: str) -> bool:
    """Half a surrogate pair has no bytes, and a path ends at a zero."""
    return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
