"""The messages between Slicer and the worker: one JSON object a line, each with a `type`.

Standard library only, because Slicer's process imports it too. Volumes never travel in the messages: a
`VolumeReference` names a raw file that both sides map into memory. A buffer belongs to whoever received the last
message naming it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

from .errors import DiffusionSegmentError, ErrorCode

PROTOCOL_VERSION = 1
MAX_LINE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class VolumeReference:
    """A raw, C-ordered array on disk and its place in the patient.

    `shape` is numpy's (k, j, i) or (k, j, i, components); `dtype` a numpy name such as "int16";
    `ijk_to_lps` the 4x4 matrix, row by row, from voxel index (i, j, k, 1) to LPS millimetres.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    ijk_to_lps: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Message:
    """Base of all messages; `type` is the wire name."""

    type: ClassVar[str] = ""


@dataclass(frozen=True, kw_only=True)
class Segment(Message):
    """Ask for a segmentation. `None` takes the model's own default; `output_folder` receives the result's buffers."""

    type: ClassVar[str] = "segment"
    id: str
    volume: VolumeReference
    output_folder: str
    model: str = "abdomen-ct"
    samples: int | None = None
    steps: int | None = None
    seed: int = 0
    sampler: str | None = None
    device: str = "auto"
    organs: tuple[str, ...] | None = None
    bodypart: bool = False
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class Cancel(Message):
    """Stop the run `id` within one denoising step."""

    type: ClassVar[str] = "cancel"
    id: str


@dataclass(frozen=True, kw_only=True)
class Ping(Message):
    """Ask for a sign of life; answered at once, also while busy."""

    type: ClassVar[str] = "ping"
    id: str


@dataclass(frozen=True, kw_only=True)
class Shutdown(Message):
    """Ask the worker to leave; closing its stdin does the same."""

    type: ClassVar[str] = "shutdown"


@dataclass(frozen=True, kw_only=True)
class Hello(Message):
    """The worker's first line. `pid` is the real process, which a launcher may hide."""

    type: ClassVar[str] = "hello"
    pid: int
    protocol: int
    version: str
    device: str
    torch: str
    models: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Progress(Message):
    """`done` of `total` units of `stage` (load, prepare, bodypart, features, refine, restore) are finished."""

    type: ClassVar[str] = "progress"
    id: str
    stage: str
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Result(Message):
    """A finished segmentation in the input's own geometry; `report` is the content of report.json."""

    type: ClassVar[str] = "result"
    id: str
    labels: VolumeReference
    uncertainty: VolumeReference
    mutual_information: VolumeReference
    report: dict[str, Any]
    bodypart: VolumeReference | None = None


@dataclass(frozen=True, kw_only=True)
class Error(Message):
    """A run (or, without `id`, a message) failed; `hint` says what to do next."""

    type: ClassVar[str] = "error"
    code: str
    message: str
    hint: str = ""
    id: str | None = None


@dataclass(frozen=True, kw_only=True)
class CancelledNotice(Message):
    """The run `id` stopped as asked; nothing was delivered."""

    type: ClassVar[str] = "cancelled"
    id: str


@dataclass(frozen=True, kw_only=True)
class Pong(Message):
    """Answer to `Ping`."""

    type: ClassVar[str] = "pong"
    id: str


_MESSAGES: dict[str, type[Message]] = {
    cls.type: cls for cls in (Segment, Cancel, Ping, Shutdown, Hello, Progress, Result, Error, CancelledNotice, Pong)
}
_VOLUME_FIELDS = ("volume", "labels", "uncertainty", "mutual_information", "bodypart")


def encode(message: Message) -> bytes:
    """One line of UTF-8 JSON, newline included."""
    payload = {"type": message.type, **asdict(message)}
    return (json.dumps(payload, allow_nan=False, separators=(",", ":")) + "\n").encode()


def decode(line: bytes | str) -> Message:
    """The message on one line; fields that this version does not know are ignored.

    Raises:
        DiffusionSegmentError: PROTOCOL when the line is too long, no JSON object, of unknown type or lacks a field.
    """
    if len(line) > MAX_LINE_BYTES:
        raise DiffusionSegmentError(ErrorCode.PROTOCOL, f"A message of {len(line)} bytes is too long.")
    try:
        payload = json.loads(line)
        message_type = _MESSAGES[payload.pop("type")]
        known = {item.name for item in fields(message_type)}
        values = {key: _thaw(key, value) for key, value in payload.items() if key in known}
        return message_type(**values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DiffusionSegmentError(ErrorCode.PROTOCOL, f"A message was not understood ({reason}).") from error


def _thaw(key: str, value: Any) -> Any:
    if key in _VOLUME_FIELDS and isinstance(value, dict):
        known = {item.name for item in fields(VolumeReference)}
        named: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items() if k in known}
        return VolumeReference(**named)
    return tuple(value) if isinstance(value, list) else value


@dataclass
class LineBuffer:
    """Joins the pieces in which a pipe delivers its bytes into whole lines."""

    _rest: bytes = field(default=b"")

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines completed by `chunk`, without their newline.

        Raises:
            DiffusionSegmentError: PROTOCOL when more than MAX_LINE_BYTES arrive without a newline.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            self._rest = b""
            raise DiffusionSegmentError(ErrorCode.PROTOCOL, "The other side sent an endless line.")
        return [line for line in lines if line.strip()]
