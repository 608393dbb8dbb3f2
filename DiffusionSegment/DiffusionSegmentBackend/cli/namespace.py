"""From the namespace that argparse returns to the options dataclass of a command."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any, TypeVar

_Options = TypeVar("_Options")


def from_namespace(kind: type[_Options], options: argparse.Namespace, **changed: Any) -> _Options:
    """Build the dataclass `kind` from the parsed options of the same names; lists become tuples.

    Args:
        kind: A dataclass of options.
        options: What `argparse` returned; options that are no field of `kind` are left out.
        changed: Values that replace parsed ones.
    """
    values = {**vars(options), **changed}
    known = {field.name: values[field.name] for field in fields(kind) if field.name in values}  # type: ignore[arg-type]
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in known.items()})
