"""The worker process of a session: the same one that Slicer starts, spoken to by its JSON lines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import DiffusionSegmentError, ErrorCode
from ..protocol.messages import (
    MAX_LINE_BYTES,
    Cancel,
    Hello,
    Message,
    Shutdown,
    Task,
    decode,
    encode,
)
from .worker import ENDS

_ENTRY = Path(__file__).resolve().parents[1] / "__main__.py"
WORKER_COMMAND = (sys.executable, "-u", str(_ENTRY), "worker")
_STOP_SECONDS = 2.0
_TRACE_LINES = 40
_CHUNK = 65536
# Of a traceback: where, but no values, which may come from a scan's header.
_TRACE = re.compile(r'\s+File "[^"]*?([^"/\\]+)", line (\d+), in (\w+)')


class WorkerProcess:
    """One worker; at most one run at a time. What it prints on standard error is read for tracebacks alone."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self._command = list(command)
        self._folder = folder
        self._environment = {**environment, "TMPDIR": str(folder)}
        self._process: asyncio.subprocess.Process | None = None
        self._sent = self._cancelled = ""
        self._log: asyncio.Task[None] | None = None
        self._trace: deque[str] = deque(maxlen=_TRACE_LINES)

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.returncode is None

    async def run(self, task: Task, deliver: Callable[[Message], None]) -> None:
        """Run a task and deliver all its messages, the last of which is its answer, refusal or cancellation notice.

        Raises:
            DiffusionSegmentError: WORKER_DIED when the process ended before.
        """
        if not self.running:
            await self._start()
        self._write(task)
        self._sent = task.id
        if self._cancelled == task.id:
            self._write(Cancel(id=task.id))
        while True:
            message = await self._read()
            if getattr(message, "id", None) != task.id:
                continue
            deliver(message)
            if isinstance(message, ENDS):
                return

    def cancel(self, task_id: str) -> None:
        """Ask the worker to stop a run within one denoising step; it may not have been sent yet."""
        self._cancelled = task_id
        if self.running and self._sent == task_id:
            self._write(Cancel(id=task_id))

    async def stop(self) -> None:
        """End the process: ask, wait a moment, kill."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(OSError):
                assert process.stdin is not None
                process.stdin.write(encode(Shutdown()))
                process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), _STOP_SECONDS)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if self._log is not None:
            self._log.cancel()

    def places_of_failure(self) -> str:
        """Files, lines and functions of the last traceback, without any value."""
        return " < ".join(reversed(self._trace))

    async def _start(self) -> None:
        await self.stop()
        self._trace.clear()
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=MAX_LINE_BYTES + 1,
            env=dict(self._environment),
            cwd=self._folder,
        )
        self._log = asyncio.create_task(self._read_log(self._process))
        if not isinstance(await self._read(), Hello):
            raise _died()

    def _write(self, message: Message) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(encode(message))

    async def _read(self) -> Message:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            line = await self._process.stdout.readline()
        except ValueError as error:
            raise _died() from error
        if not line:
            await self._process.wait()
            raise _died()
        return decode(line)

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while line := await process.stderr.read(_CHUNK):
            for match in _TRACE.finditer(line.decode(errors="replace")):
                self._trace.append(f"{match[1]}:{match[2]} {match[3]}")


def worker_environment() -> dict[str, str]:
    """The environment of worker processes."""
    return {**os.environ, "PYTHONUTF8": "1", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}


def _died() -> DiffusionSegmentError:
    return DiffusionSegmentError(
        ErrorCode.WORKER_DIED,
        "The server's segmentation process stopped unexpectedly.",
        hint="Click Segment once more.",
    )
