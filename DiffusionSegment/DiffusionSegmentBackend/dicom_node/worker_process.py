"""The worker process of a node: one request at a time, each with a time limit; a dead worker is replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from typing import IO

from ..errors import DiffusionSegmentError, ErrorCode
from ..protocol.messages import ANSWERS, Answer, Error, LineBuffer, Message, Task, decode, encode

_PACKAGE_FOLDER = Path(__file__).resolve().parents[2]
_CHUNK = 65536
_MAX_WAIT_S = 1.0
_TRY_AGAIN = "It is tried again."


class WorkerProcess:
    """Runs tasks in a worker process, which is started by the first task and stays warm."""

    def __init__(self, command: Sequence[str], *, show_log: bool = False) -> None:
        self._command = list(command)
        self._show_log = show_log
        self._process: subprocess.Popen[bytes] | None = None
        self._messages: Queue[Message | None] = Queue()
        self._stopped = threading.Event()
        self.starts = 0

    def run(self, task: Task, *, seconds: float) -> Answer:
        """Run a task; a worker that does not answer within `seconds` is ended.

        Raises:
            DiffusionSegmentError: what the worker answers; WORKER_DIED if it exits or is too slow; CANCELLED after
                `close`.
        """
        deadline = time.monotonic() + seconds
        self._send(encode(task))
        while True:
            try:
                message = self._messages.get(timeout=max(0.0, min(_MAX_WAIT_S, deadline - time.monotonic())))
            except Empty:
                if time.monotonic() >= deadline:
                    self._end()
                    raise _died(f"The run did not end within {seconds / 60:g} min.") from None
                continue
            if message is None:
                self._end()
                if self._stopped.is_set():
                    raise _stopped()
                raise _died("The segmentation process stopped unexpectedly.")
            if isinstance(message, ANSWERS) and message.id == task.id:
                return message
            if isinstance(message, Error) and message.id in (task.id, None):
                raise _error_of(message)

    def close(self) -> None:
        """End the worker; a running task raises CANCELLED."""
        self._stopped.set()
        self._end()

    def _send(self, line: bytes) -> None:
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        # A worker that has just died is noticed by the end of its output.
        with suppress(BrokenPipeError):
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def _start(self) -> None:
        if self._stopped.is_set():
            raise _stopped()
        environment = dict(os.environ)
        paths = (str(_PACKAGE_FOLDER), os.environ.get("PYTHONPATH"))
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        self._messages = Queue()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Messages of libraries may contain values of DICOM headers.
            stderr=None if self._show_log else subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        self.starts += 1
        assert self._process.stdout is not None
        arguments = (self._process.stdout, self._messages)
        threading.Thread(target=_read, args=arguments, name="worker output", daemon=True).start()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if sys.platform != "win32":
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()


def _read(stream: IO[bytes], messages: Queue[Message | None]) -> None:
    """Put every message of a worker into the queue, and None at the end of its output."""
    lines = LineBuffer()
    with stream, suppress(DiffusionSegmentError):
        while chunk := stream.read1(_CHUNK):  # type: ignore[attr-defined]
            for line in lines.feed(chunk):
                messages.put(decode(line))
    messages.put(None)


def _died(message: str) -> DiffusionSegmentError:
    return DiffusionSegmentError(ErrorCode.WORKER_DIED, message, hint=_TRY_AGAIN)


def _stopped() -> DiffusionSegmentError:
    return DiffusionSegmentError(ErrorCode.CANCELLED, "The node was stopped.")


def _error_of(message: Error) -> DiffusionSegmentError:
    known = message.code in {code.value for code in ErrorCode}
    code = ErrorCode(message.code) if known else ErrorCode.INTERNAL
    return DiffusionSegmentError(code, message.message, hint=message.hint)
