"""A worker as a child process: its start, its messages, its end."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Queue
from typing import IO

from ..errors import DiffusionSegmentError
from ..protocol.line_buffer import LineBuffer
from ..protocol.messages import Message, decode, encode
from .process_tree import end_tree

_PACKAGE_FOLDER = Path(__file__).resolve().parents[2]
_CHUNK = 65536


class WorkerChild:
    """One process at a time that speaks the worker's protocol.

    What it prints on standard error is shown only on request: messages of libraries may contain paths, and values of
    DICOM headers.

    Args:
        command: The command line.
        environment: Variables in addition to those of this process.
        show_log: Whether its standard error is that of this process.
    """

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str] | None = None, show_log: bool = False
    ) -> None:
        self._command = list(command)
        self._environment = dict(environment or {})
        self._show_log = show_log
        self._process: subprocess.Popen[bytes] | None = None
        self._messages: Queue[Message | None] = Queue()

    @property
    def pid(self) -> int | None:
        """The process, None while there is none."""
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """End a process that is left, and start another.

        Raises:
            OSError: The command cannot be run.
        """
        self.end()
        paths = (str(_PACKAGE_FOLDER), os.environ.get("PYTHONPATH"))
        self._messages = Queue()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if self._show_log else subprocess.DEVNULL,
            env={**os.environ, **self._environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            start_new_session=True,
        )
        assert self._process.stdout is not None
        arguments = (self._process.stdout, self._messages)
        threading.Thread(target=_receive, args=arguments, name="worker output", daemon=True).start()

    def send(self, message: Message) -> None:
        """Send a message; a process that has just ended is noticed by `receive`."""
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(encode(message))
            self._process.stdin.flush()

    def receive(self, seconds: float) -> Message | None:
        """The next message; None at the end of the process, and after a line that is no message.

        Raises:
            queue.Empty: There is none within these seconds.
        """
        return self._messages.get(timeout=max(0.0, seconds))

    def end(self, *, grace_seconds: float = 0.0) -> None:
        """Close the input of the process, wait this long, and kill it with all that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(OSError):
            assert process.stdin is not None
            process.stdin.close()
        if grace_seconds > 0:
            with suppress(subprocess.TimeoutExpired):
                process.wait(grace_seconds)
        end_tree(process)


def _receive(stream: IO[bytes], messages: Queue[Message | None]) -> None:
    """Put every message of a worker into the queue, and None at the end."""
    lines = LineBuffer()
    with stream, suppress(DiffusionSegmentError, OSError, ValueError):
        while chunk := stream.read1(_CHUNK):  # type: ignore[attr-defined]
            for line in lines.feed(chunk):
                messages.put(decode(line))
    messages.put(None)
