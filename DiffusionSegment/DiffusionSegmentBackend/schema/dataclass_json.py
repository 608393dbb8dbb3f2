"""JSON values <-> frozen dataclasses, checked against the types that the dataclass declares.

The one parser of everything that crosses a process boundary or is stored on disk. A class may replace the general rule
by a class method `from_json` and a method `to_json` of its own.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

_T = TypeVar("_T")
# Beyond this, sums and squares of floats overflow.
_MAX_NUMBER = 1e300
_HINTS: dict[type[Any], dict[str, Any]] = {}


class SchemaError(ValueError):
    """A JSON value does not have the declared type; the message begins with the path of the value."""


def from_json(kind: type[_T], value: Any, *, path: str = "") -> _T:
    """Build the dataclass `kind` from a JSON object. Unknown keys are ignored, missing ones take the field's default.

    Raises:
        SchemaError: A key without a default is missing, or a value is of another type, NaN, infinite, or text that no
            file name can hold.
    """
    if not isinstance(value, Mapping):
        raise SchemaError(f"{path or kind.__name__} is not an object")
    values: dict[str, Any] = {}
    hints = _hints(kind)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name in value:
            values[field.name] = _convert(hints[field.name], value[field.name], f"{path}.{field.name}".lstrip("."))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SchemaError(f"{path or kind.__name__} has no {field.name}")
    return kind(**values)


def to_json(value: Any) -> Any:
    """Objects, lists and plain values that `json.dumps` writes; the reverse of `from_json`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if (own := vars(type(value)).get("to_json")) is not None:
            return own(value)
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    return value


def _hints(kind: type[Any]) -> dict[str, Any]:
    if kind not in _HINTS:
        _HINTS[kind] = typing.get_type_hints(kind)
    return _HINTS[kind]


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(typing.get_args(hint), value, path)
    if origin is tuple:
        return _convert_tuple(typing.get_args(hint), value, path)
    if origin is dict:
        return _convert_dict(typing.get_args(hint)[1], value, path)
    if dataclasses.is_dataclass(hint):
        return _convert_dataclass(hint, value, path)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _convert_enum(hint, value, path)
    return _convert_plain(hint, value, path)


def _convert_union(options: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in options:
        return None
    kinds = [option for option in options if option is not type(None)]
    for kind in kinds[:-1]:
        try:
            return _convert(kind, value, path)
        except SchemaError:
            continue
    return _convert(kinds[-1], value, path)


def _convert_tuple(parts: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise SchemaError(f"{path} is not a list")
    if len(parts) == 2 and parts[1] is Ellipsis:
        parts = (parts[0],) * len(value)
    if len(parts) != len(value):
        raise SchemaError(f"{path} does not have {len(parts)} items")
    return tuple(_convert(part, item, f"{path}[{n}]") for n, (part, item) in enumerate(zip(parts, value, strict=True)))


def _convert_dict(part: Any, value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise SchemaError(f"{path} is not an object")
    return {key: _convert(part, item, f"{path}.{key}"[:80]) for key, item in value.items()}


def _convert_dataclass(kind: Any, value: Any, path: str) -> Any:
    if isinstance(value, kind):
        return value
    if "from_json" in vars(kind):
        return kind.from_json(value)
    return from_json(kind, value, path=path)


def _convert_enum(kind: type[Enum], value: Any, path: str) -> Enum:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(str(member.value) for member in kind)
        raise SchemaError(f"{path} is {value!r:.40}, not one of {known}") from None


def _convert_plain(kind: Any, value: Any, path: str) -> Any:
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value) or abs(value) >= _MAX_NUMBER:
            raise SchemaError(f"{path} is {value!r:.20}, not a finite number")
        return float(value)
    if kind is str and isinstance(value, str) and not _is_text(value):
        raise SchemaError(f"{path} has characters that no file name can hold")
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise SchemaError(f"{path} is {value!r:.40}, not of type {kind.__name__}")


def _is_text(value: str) -> bool:
    """Whether the text can be a file name: it ends at no zero, and each half of a surrogate pair stands for a byte.

    Python decodes bytes of file names that are not UTF-8 to U+DC80..U+DCFF.
    """
    return "\0" not in value and not any(
        "\ud800" <= letter <= "\udfff" and not "\udc80" <= letter <= "\udcff" for letter in value
    )
