"""The messages between Slicer and the worker: one JSON object a line, each with a `type`.

Standard library only, because Slicer's process imports it too. Volumes never travel in the messages: a
`VolumeReference` names a raw file that both sides map into memory. A buffer belongs to whoever received the last
message naming it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from typing import ClassVar

from ..errors import DiffusionSegmentError, ErrorCode
from ..schema.dataclass_json import from_json, to_json
from ..schema.fine_tuning_report import FineTuningReport
from ..schema.region_alternative import AlternativesOfRegion
from ..schema.report import Report
from ..schema.self_test_findings import SelfTestFindings
from .requests import (
    Alternatives,
    Correct,
    ExportDicom,
    FineTune,
    Finished,
    ImportModel,
    Message,
    Presegment,
    Request,
    Review,
    Segment,
    SegmentFiles,
    SelfTest,
    Similar,
    Task,
    VolumeReference,
    WriteReport,
)

__all__ = [
    "ANSWERS",
    "MAX_LINE_BYTES",
    "PROTOCOL_VERSION",
    "Alternatives",
    "Answer",
    "Cancel",
    "CancelledNotice",
    "Correct",
    "Corrected",
    "Error",
    "ExportDicom",
    "FilesSegmented",
    "FineTune",
    "FineTuned",
    "Finished",
    "Hello",
    "ImportModel",
    "Imported",
    "Message",
    "Ping",
    "Pong",
    "Presegment",
    "Presegmented",
    "Preview",
    "Progress",
    "RegionAlternatives",
    "Request",
    "Result",
    "Review",
    "Segment",
    "SegmentFiles",
    "SelfTest",
    "SelfTestReport",
    "Shutdown",
    "Similar",
    "Similarity",
    "Task",
    "VolumeReference",
    "WriteReport",
    "Written",
    "buffers_of",
    "decode",
    "encode",
]

PROTOCOL_VERSION = 7
MAX_LINE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Cancel(Message):
    """Stop the run `id` within one denoising step."""

    type: ClassVar[str] = "cancel"
    id: str


@dataclass(frozen=True, kw_only=True)
class Ping(Message):
    """Liveness check; answered at once, also while busy."""

    type: ClassVar[str] = "ping"
    id: str


@dataclass(frozen=True, kw_only=True)
class Shutdown(Message):
    """Ask the worker to exit; closing its stdin does the same."""

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
    """`done` of `total` units of `stage` (load, prepare, bodypart, features, refine, restore, ...) are finished."""

    type: ClassVar[str] = "progress"
    id: str
    stage: str
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Preview(Message):
    """The pre-segmentation before refinement, uint8 in the input's own geometry; its `Result` is still to come."""

    type: ClassVar[str] = "preview"
    id: str
    labels: VolumeReference


@dataclass(frozen=True, kw_only=True)
class Result(Message):
    """A finished segmentation in the input's own geometry; `report` is the content of report.json.

    `uncertainty` and `mutual_information`, float32 0..1, have their own geometry: a box of the model's grid.
    `alternatives` and `alternative_marks` are as in `RegionAlternatives`.
    """

    type: ClassVar[str] = "result"
    id: str
    labels: VolumeReference
    uncertainty: VolumeReference
    mutual_information: VolumeReference
    report: Report
    regions: VolumeReference | None = None
    bodypart: VolumeReference | None = None
    alternatives: tuple[AlternativesOfRegion, ...] = ()
    alternative_marks: VolumeReference | None = None


@dataclass(frozen=True, kw_only=True)
class Corrected(Message):
    """A correction: labels of a box of the scan (their own geometry), regions and report of the whole.

    `uncertainty` and `mutual_information` are whole maps as in `Result`, `alternatives` and `alternative_marks` as in
    `RegionAlternatives`.
    """

    type: ClassVar[str] = "corrected"
    id: str
    labels: VolumeReference
    uncertainty: VolumeReference
    mutual_information: VolumeReference
    regions: VolumeReference
    report: Report
    alternatives: tuple[AlternativesOfRegion, ...] = ()
    alternative_marks: VolumeReference | None = None


@dataclass(frozen=True, kw_only=True)
class RegionAlternatives(Message):
    """The alternatives of each region to review.

    `alternative_marks` (uint8 (n, k, j, i), the geometry is that of the scan) holds the marks of all n alternatives in
    the order of `alternatives`: 0 no change, k + 1 label k. Those of one alternative begin at its `start_ijk`, and are
    padded with 0. None where there is no alternative.
    """

    type: ClassVar[str] = "region_alternatives"
    id: str
    alternatives: tuple[AlternativesOfRegion, ...] = ()
    alternative_marks: VolumeReference | None = None


@dataclass(frozen=True, kw_only=True)
class Presegmented(Message):
    """The label map of a model of another program, uint8 on the voxels of the scan.

    `names` are those of `values`, without background; `title` names the model; `warnings` are sentences for the user.
    """

    type: ClassVar[str] = "presegmented"
    id: str
    labels: VolumeReference
    values: tuple[int, ...]
    names: tuple[str, ...]
    title: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Similarity(Message):
    """Cosine similarity -1..1, float32 (k, j, i), on the trunk's grid, whose geometry `similarity` names."""

    type: ClassVar[str] = "similarity"
    id: str
    similarity: VolumeReference


@dataclass(frozen=True, kw_only=True)
class FineTuned(Message):
    """A new user model, installed under `name`; `report` states how it was trained."""

    type: ClassVar[str] = "fine_tuned"
    id: str
    name: str
    report: FineTuningReport


@dataclass(frozen=True, kw_only=True)
class Written(Message):
    """A report or an export lies at `path`."""

    type: ClassVar[str] = "written"
    id: str
    path: str


@dataclass(frozen=True, kw_only=True)
class FilesSegmented(Message):
    """The result folder of a scan is complete. `key` follows from the scan's bytes and the `settings`.

    `kept` states that it is an earlier result of the same key. `shape` is numpy's (k, j, i), `spacing_mm` is along
    i, j, k, and `cut` are the organs that reach the edge of the scan; all three are empty for a kept result.
    """

    type: ClassVar[str] = "files_segmented"
    id: str
    key: str
    kept: bool
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    cut: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SelfTestReport(Message):
    """What the worker computes with and how fast."""

    type: ClassVar[str] = "self_test_report"
    id: str
    report: SelfTestFindings


@dataclass(frozen=True, kw_only=True)
class Imported(Message):
    """A model was installed under `name`."""

    type: ClassVar[str] = "imported"
    id: str
    name: str


Answer = (
    Result
    | Corrected
    | RegionAlternatives
    | Presegmented
    | Similarity
    | FineTuned
    | Written
    | SelfTestReport
    | Imported
)
ANSWERS = (
    Result,
    Corrected,
    RegionAlternatives,
    Presegmented,
    Similarity,
    FineTuned,
    Written,
    SelfTestReport,
    Imported,
)


@dataclass(frozen=True, kw_only=True)
class Error(Message):
    """A run (or, without `id`, a message) failed; `hint` says what to do next."""

    type: ClassVar[str] = "error"
    code: str
    message: str
    hint: str = ""
    id: str | None = None

    @classmethod
    def of(cls, error: DiffusionSegmentError, run_id: str | None = None) -> Error:
        """The message about an error, of a run or, without `run_id`, of a message."""
        return cls(code=error.code.value, message=error.message, hint=error.hint, id=run_id)

    def as_exception(self) -> DiffusionSegmentError:
        """The error that the message is about; a code that this version does not know becomes INTERNAL."""
        known = self.code in {code.value for code in ErrorCode}
        code = ErrorCode(self.code) if known else ErrorCode.INTERNAL
        return DiffusionSegmentError(code, self.message, hint=self.hint)


@dataclass(frozen=True, kw_only=True)
class CancelledNotice(Message):
    """The run `id` stopped as asked; there is no result."""

    type: ClassVar[str] = "cancelled"
    id: str


@dataclass(frozen=True, kw_only=True)
class Pong(Message):
    """Answer to `Ping`."""

    type: ClassVar[str] = "pong"
    id: str


_MESSAGES: dict[str, type[Message]] = {
    cls.type: cls
    for cls in (
        *(Segment, Review, Correct, Alternatives, Similar, FineTune, WriteReport, ExportDicom, Cancel, Ping, Shutdown),
        *(SelfTest, SelfTestReport, ImportModel, Imported, Presegment, Presegmented, SegmentFiles, FilesSegmented),
        *(Hello, Progress, Preview, Result, Corrected, RegionAlternatives, Similarity, FineTuned, Written),
        *(Error, CancelledNotice, Pong),
    )
}


def buffers_of(message: Message) -> list[VolumeReference]:
    """All buffers that a message names."""
    values = (getattr(message, item.name) for item in fields(message))
    return [value for value in values if isinstance(value, VolumeReference)]


def encode(message: Message) -> bytes:
    """One line of UTF-8 JSON, newline included."""
    payload = {"type": message.type, **to_json(message)}
    return (json.dumps(payload, allow_nan=False, separators=(",", ":")) + "\n").encode()


def decode(line: bytes | str) -> Message:
    """The message on one line; fields that this version does not know are ignored.

    Raises:
        DiffusionSegmentError: PROTOCOL when the line is too long, no JSON object, of unknown type, lacks a field or
            holds a value of another type than the field's.
    """
    if len(line) > MAX_LINE_BYTES:
        raise DiffusionSegmentError(ErrorCode.PROTOCOL, f"A message of {len(line)} bytes is too long.")
    try:
        payload = json.loads(line, parse_float=_finite, parse_constant=_finite)
        return from_json(_MESSAGES[payload.pop("type")], payload)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise DiffusionSegmentError(ErrorCode.PROTOCOL, f"A message was not understood ({reason}).") from error


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a finite number")
    return number
