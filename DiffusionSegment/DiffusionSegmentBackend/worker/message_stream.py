"""The standard streams of a process that speaks the worker's protocol: what is read, answered at once, and written."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from ..errors import DiffusionSegmentError, ErrorCode
from ..protocol.messages import MAX_LINE_BYTES, Error, Message, Ping, Pong, Shutdown, Task, decode, encode


@dataclass
class Outbox:
    """Writes messages, one whole line at a time, from any thread."""

    stream: BinaryIO
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, message: Message) -> None:
        """Encode, write and flush.

        Raises:
            TypeError, ValueError: the message cannot be written as JSON.
        """
        self.send_line(encode(message))

    def send_line(self, line: bytes) -> None:
        """Write and flush; a reader that is gone is no error, stdin will close too."""
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):
            self.stream.write(line)
            self.stream.flush()


def messages_of(stream: BinaryIO, outbox: Outbox) -> Iterator[Message]:
    """The messages until the stream ends or `shutdown` comes; a ping and what is no message are answered at once."""
    for line in _lines(stream):
        try:
            message = decode(line)
        except DiffusionSegmentError as error:
            outbox.send(Error.of(error))
            continue
        if isinstance(message, Shutdown):
            return
        if isinstance(message, Ping):
            outbox.send(Pong(id=message.id))
        else:
            yield message


def refuse_busy(task: Task, outbox: Outbox) -> None:
    """Refuse a task during another."""
    busy = DiffusionSegmentError(ErrorCode.BUSY, "A run is in progress.", hint="Cancel it or wait.")
    outbox.send(Error.of(busy, task.id))


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """The stream's lines but empty ones; of one that is too long only the beginning, which is still too long."""
    while line := stream.readline(MAX_LINE_BYTES + 1):
        rest = line
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE_BYTES + 1)
        if line.strip():
            yield line
