"""JSON Schema of the files and messages, generated from the dataclasses: `python -m ...schema.json_schema -o DIR`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import types
import typing
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from .model_manifest import ModelManifest
from .report import Report
from .review_state import ReviewState

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
# By the name of the file that is described.
FILES: dict[str, type[Any]] = {"report": Report, "review": ReviewState, "model": ModelManifest}


def json_schema(kind: type[Any]) -> dict[str, Any]:
    """The schema of the JSON object that `dataclass_json.from_json` reads as the dataclass `kind`."""
    return {"$schema": DIALECT, **_object(kind)}


def _object(kind: type[Any]) -> dict[str, Any]:
    if "json_properties" in vars(kind):
        properties, required = kind.json_properties(_type)
    else:
        properties, required = properties_of(kind)
    about = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
    return {
        "title": kind.__name__,
        "description": about,
        "type": "object",
        "properties": properties,
        "required": required,
    }


def properties_of(kind: type[Any]) -> tuple[dict[str, Any], list[str]]:
    """The schemas of a dataclass's fields, and the names of those without a default."""
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    missing = dataclasses.MISSING
    required = [field.name for field in fields if field.default is missing and field.default_factory is missing]
    return {field.name: _type(hints[field.name]) for field in fields}, required


def _type(hint: Any) -> dict[str, Any]:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return {}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_type(part) for part in parts]}
    if origin is tuple and parts[-1] is Ellipsis:
        return {"type": "array", "items": _type(parts[0])}
    if origin is tuple:
        return {"type": "array", "prefixItems": [_type(part) for part in parts], "minItems": len(parts), "items": False}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type(parts[1])}
    if dataclasses.is_dataclass(hint):
        return _object(typing.cast("type[Any]", hint))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return {"enum": [member.value for member in hint]}
    return {"type": _PLAIN[hint]}


def write_schemas(folder: Path) -> None:
    """Write `report.schema.json` and so on into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, kind in FILES.items():
        text = json.dumps(json_schema(kind), indent=2, ensure_ascii=False)
        (folder / f"{name}.schema.json").write_text(text + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the schemas into the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/schemas"), metavar="DIR")
    write_schemas(parser.parse_args(arguments).output)


if __name__ == "__main__":
    main()
