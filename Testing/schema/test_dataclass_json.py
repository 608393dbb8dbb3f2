"""JSON objects become dataclasses only where every value has the declared type, and come back unchanged."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pytest
from DiffusionSegmentBackend.schema.dataclass_json import SchemaError, from_json, to_json


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    weight: float
    colour: Colour = Colour.RED


@dataclass(frozen=True)
class Outer:
    name: str
    count: int
    flag: bool = False
    maybe: float | None = None
    pair: tuple[int, int] = (0, 0)
    parts: tuple[Inner, ...] = ()
    by_name: dict[str, Inner] = field(default_factory=dict)
    anything: Any = None


WHOLE = {
    "name": "Größe",
    "count": 3,
    "flag": True,
    "maybe": 0.5,
    "pair": [1, 2],
    "parts": [{"weight": 1.0, "colour": "blue"}],
    "by_name": {"a": {"weight": 2.0, "colour": "red"}},
    "anything": {"free": [1, "x", None]},
}


def test_a_dataclass_is_equal_after_writing_and_reading() -> None:
    read = from_json(Outer, WHOLE)
    assert read.parts == (Inner(1.0, Colour.BLUE),)
    assert to_json(read) == WHOLE
    assert from_json(Outer, json.loads(json.dumps(to_json(read)))) == read


def test_file_names_that_are_not_utf_8_are_accepted() -> None:
    name = b"scan-\xff.nii".decode("utf-8", errors="surrogateescape")
    assert from_json(Outer, json.loads(json.dumps({"name": name, "count": 1}))).name == name


def test_defaults_fill_in_and_unknown_keys_are_ignored() -> None:
    assert from_json(Outer, {"name": "a", "count": 1, "later": []}) == Outer("a", 1)


def test_an_integer_is_accepted_as_a_float() -> None:
    weight = from_json(Inner, {"weight": 2}).weight
    assert weight == 2.0
    assert isinstance(weight, float)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": 5}, "name is 5"),
        ({"name": "a\0b"}, "no file name"),
        ({"name": "\ud800"}, "no file name"),
        ({"count": 1.5}, "count is 1.5"),
        ({"count": True}, "count is True"),
        ({"flag": 1}, "flag is 1"),
        ({"maybe": float("nan")}, "finite"),
        ({"maybe": 1e301}, "finite"),
        ({"pair": [1]}, "2 items"),
        ({"pair": "12"}, "not a list"),
        ({"parts": [{"weight": 1.0}, {"colour": "red"}]}, r"parts\[1\] has no weight"),
        ({"parts": [{"weight": "1"}]}, r"parts\[0\].weight"),
        ({"parts": {"weight": 1.0}}, "not a list"),
        ({"by_name": [1]}, "not an object"),
        ({"by_name": {"a": {"weight": 1.0, "colour": "green"}}}, "not one of red, blue"),
    ],
)
def test_a_value_of_another_type_is_named_by_its_path(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SchemaError, match=words):
        from_json(Outer, {**WHOLE, **change})


@pytest.mark.parametrize("value", [None, [], 3, "text"])
def test_only_objects_become_dataclasses(value: Any) -> None:
    with pytest.raises(SchemaError, match="not an object"):
        from_json(Outer, value)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(SchemaError, match="has no count"):
        from_json(Outer, {"name": "a"})
