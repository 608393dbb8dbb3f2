"""The worker as a subprocess, for scripts and tests without Qt. Events are delivered by `poll`."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, Queue
from typing import IO

from .transport_protocol import LOG_LINES, WORKER_ARGUMENTS, ignoreFinished, ignoreOutput

_CHUNK = 65536
_LOG_SECONDS = 1.0


class SubprocessTransport:
    """Runs `command` (default: this Python with the bundled worker)."""

    def __init__(self, command: Sequence[str] | None = None) -> None:
        self.onOutput: Callable[[bytes], None] = ignoreOutput
        self.onFinished: Callable[[int], None] = ignoreFinished
        self._command = list(command) if command else [sys.executable, *WORKER_ARGUMENTS]
        self._events: Queue[bytes | int] = Queue()
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and the threads that read from it; a failed start is reported as an exit."""
        try:
            process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
            )
        except OSError as error:
            self._log.append(str(error))
            self._events.put(-1)
            return
        self._process = process
        assert process.stdout is not None
        assert process.stderr is not None
        log = threading.Thread(target=self._readLog, args=(process.stderr,), daemon=True)
        log.start()
        threading.Thread(target=self._readOutput, args=(process, process.stdout, log), daemon=True).start()

    def _readOutput(self, process: subprocess.Popen[bytes], stream: IO[bytes], log: threading.Thread) -> None:
        with stream:
            while chunk := stream.read(_CHUNK):
                self._events.put(chunk)
        # The exit is reported after the log was read; a child process may keep it open.
        log.join(_LOG_SECONDS)
        exitCode = process.wait()
        # The log of an ended worker is kept, its pipes are closed.
        self.closeInput()
        self._events.put(exitCode)

    def _readLog(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                self._log.append(line.decode(errors="replace").rstrip())

    def poll(self, seconds: float = 0.0) -> bool:
        """Deliver pending events, waiting up to `seconds` for the first; returns False when there was none."""
        try:
            event = self._events.get(timeout=seconds) if seconds > 0 else self._events.get_nowait()
        except Empty:
            return False
        while True:
            if isinstance(event, bytes):
                self.onOutput(event)
            else:
                self.onFinished(event)
            try:
                event = self._events.get_nowait()
            except Empty:
                return True

    def write(self, data: bytes) -> None:
        """Send bytes; `onFinished` reports a process that has ended."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError, ValueError):
                self._process.stdin.write(data)

    def closeInput(self) -> None:
        """Close standard input."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def waitForFinished(self, seconds: float) -> bool:
        """Whether the process ended within that time."""
        if self._process is None:
            return True
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()

    def log(self) -> str:
        """The last lines of standard error."""
        return "\n".join(self._log)
