"""The worker process on this computer, for what reads or writes its files: reports, DICOM SEG, models."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ..errors import DiffusionSegmentError, ErrorCode
from ..protocol.messages import ANSWERS, CancelledNotice, Error, Hello, Message, Task, decode, encode

_ENTRY = Path(__file__).resolve().parents[1] / "__main__.py"
_COMMAND = (sys.executable, "-u", str(_ENTRY), "worker")
_ENDS = (*ANSWERS, Error, CancelledNotice)
_STOP_SECONDS = 1.0


class LocalWorker:
    """A worker that is started by the first task; `send` gets its messages but the last of each task."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def run(self, task: Task) -> Message:
        """Run a task and return its last message.

        Raises:
            DiffusionSegmentError: WORKER_DIED when the process ends before.
        """
        output = self._started()
        self.write(task)
        for line in iter(output.readline, b""):
            message = decode(line)
            if isinstance(message, Hello) or getattr(message, "id", None) != task.id:
                continue
            if isinstance(message, _ENDS):
                return message
            self._send(message)
        self._process = None
        raise DiffusionSegmentError(ErrorCode.WORKER_DIED, "The process on this computer stopped unexpectedly.")

    def write(self, message: Message) -> None:
        """Send a message, such as a cancellation; nothing happens without a process."""
        process = self._process
        if process is not None and process.stdin is not None:
            with self._lock, contextlib.suppress(OSError, ValueError):
                process.stdin.write(encode(message))
                process.stdin.flush()

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()

    def _started(self) -> IO[bytes]:
        if self._process is None or self._process.poll() is not None:
            try:
                self._process = subprocess.Popen(_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            except OSError as error:
                raise DiffusionSegmentError(ErrorCode.WORKER_DIED, "The process could not be started.") from error
        assert self._process.stdout is not None
        return self._process.stdout
