"""Deterministic damage: bits flipped, pieces cut, moved and swapped, fields and numbers replaced by extremes."""

from __future__ import annotations

import copy
import json
import re
import struct
from collections.abc import Callable
from random import Random
from typing import Any

Rng = Random

_INTEGERS = (0, 1, -1, 2, 127, 128, 255, 256, 32767, -32768, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63))
_REALS = (0.0, -0.0, -1.0, 1e-30, 1e30, -1e30, 1e-320, 3.4e38, 1.7e308, float("nan"), float("inf"), float("-inf"))
_WORDS = (
    *(
        "",
        " ",
        "\0",
        "\n",
        "\r\n",
        "..",
        "../../x",
        "/dev/stdin",
        "/dev/zero",
        "/etc/passwd",
        "C:\\x",
        "%s%n",
        "*",
        "[",
        "~",
    ),
    *(
        "nan",
        "inf",
        "-1",
        "0",
        "1e999",
        "99999999999999999999",
        "-0",
        "0x10",
        "١",
        "NaN NaN NaN",
        "a" * 5000,
        "é",
        "\u202e",
    ),
)
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def damaged(rng: Rng, data: bytes, *, head: int) -> bytes:
    """The data after one to four mutations, three in four of them in the first `head` bytes, where the fields are."""
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        if data:
            data = rng.choice(_BYTE_MUTATIONS)(rng, data, _offset(rng, data, head))
    return data


def _offset(rng: Rng, data: bytes, head: int) -> int:
    return rng.randrange(min(head, len(data)) if rng.random() < 0.75 else len(data))


def _flip(rng: Rng, data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def _truncate(rng: Rng, data: bytes, at: int) -> bytes:
    return data[:at] if rng.random() < 0.5 else data[: len(data) - rng.randrange(1, min(64, len(data)) + 1)]


def _cut(rng: Rng, data: bytes, at: int) -> bytes:
    return data[:at] + data[at + rng.choice((1, 2, 4, 8, 100)) :]


def _repeat(rng: Rng, data: bytes, at: int) -> bytes:
    piece = data[at : at + rng.choice((1, 4, 16, 200))]
    return data[:at] + piece * rng.choice((2, 3, 50)) + data[at + len(piece) :]


def _splice(rng: Rng, data: bytes, at: int) -> bytes:
    """A piece of the file copied over another one."""
    source, length = rng.randrange(len(data)), rng.choice((2, 4, 8, 32, 348))
    return data[:at] + data[source : source + length] + data[at + length :]


def _extreme(rng: Rng, data: bytes, at: int) -> bytes:
    field = _packed(rng)
    at -= at % len(field) if rng.random() < 0.7 else 0
    return data[:at] + field + data[at + len(field) :]


def _packed(rng: Rng) -> bytes:
    order = rng.choice("<<<>")
    if rng.random() < 0.5:
        kind = rng.choice("fd")
        value = rng.choice(_REALS)
        return struct.pack(order + kind, value if kind == "d" or abs(value) < 3.4e38 or value != value else 3e38)
    size, kind = rng.choice(((1, "B"), (2, "H"), (4, "I"), (8, "Q")))
    return struct.pack(order + kind, rng.choice(_INTEGERS) & (2 ** (8 * size) - 1))


def _noise(rng: Rng, data: bytes, at: int) -> bytes:
    length = rng.choice((1, 2, 8, 64))
    return data[:at] + rng.randbytes(length) + data[at + length * rng.randrange(2) :]


def _number(rng: Rng, data: bytes, at: int) -> bytes:
    """A number that is written in letters becomes another."""
    match = _NUMBER.search(data, at, at + 2000)
    if match is None:
        return _extreme(rng, data, at)
    word = rng.choice((str(rng.choice(_INTEGERS)), repr(rng.choice(_REALS)), rng.choice(_WORDS)))
    return data[: match.start()] + word.encode() + data[match.end() :]


_BYTE_MUTATIONS: tuple[Callable[[Rng, bytes, int], bytes], ...] = (
    *(_flip, _flip, _truncate, _cut, _repeat, _splice, _extreme, _extreme, _extreme, _noise, _number, _number),
)


def damaged_json(rng: Rng, value: Any) -> Any:
    """A copy of a JSON value in which one to three values were replaced, removed, doubled or renamed."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        entries = list(_entries(value))
        if not entries:
            return _value(rng)
        holder, key = rng.choice(entries)
        _damage_entry(rng, holder, key)
    return value


def _entries(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield value, key
        yield from _entries(part)


def _damage_entry(rng: Rng, holder: Any, key: Any) -> None:
    chance = rng.random()
    if chance < 0.6:
        holder[key] = _value(rng)
    elif chance < 0.75:
        del holder[key]
    elif chance < 0.85 and isinstance(holder, dict):
        holder[rng.choice((*holder, *_WORDS))] = holder[key]
    elif isinstance(holder, list):
        holder.extend([holder[key]] * rng.choice((1, 3, 300)))
    else:
        holder[key] = [holder[key]]


def _value(rng: Rng) -> Any:
    plain = (None, True, False, [], {}, [[]], [0] * 16, {"a": 1}, rng.choice(_INTEGERS), rng.choice(_REALS))
    return rng.choice((*plain, rng.choice(_WORDS), rng.choice(_WORDS), rng.choice(_INTEGERS), rng.choice(_REALS)))


def damaged_text(rng: Rng, value: Any) -> bytes:
    """JSON of a value that was damaged as a tree, as text, or both."""
    tree, text = rng.choice(((True, False), (True, False), (True, False), (False, True), (True, True)))
    data = json.dumps(damaged_json(rng, value) if tree else value).encode()
    if rng.random() < 0.01:
        data = b"[" * 100_000 + data
    return damaged(rng, data, head=len(data)) if text else data
