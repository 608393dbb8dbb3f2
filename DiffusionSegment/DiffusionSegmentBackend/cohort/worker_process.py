"""A warm worker process and its supervisor: it answers every job, whatever happens to the process."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import psutil

from ..errors import DiffusionSegmentError, ErrorCode
from ..protocol.messages import CancelledNotice, Error, FilesSegmented, Hello, Message, decode, encode
from .scan import Job, Outcome

_PACKAGE_FOLDER = Path(__file__).resolve().parents[2]
START_SECONDS = 300.0
_GRACE_SECONDS = 2.0


def worker_command() -> tuple[str, ...]:
    """The command line of a worker of a cohort."""
    return (sys.executable, "-m", f"{__package__}.worker_main")


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """How workers are started: command line, CPU threads of each, and whether their log goes to standard error."""

    command: tuple[str, ...] = field(default_factory=worker_command)
    threads: int = 1
    verbose: bool = False


class WorkerDied(Exception):
    """The process ended, or was ended after the time limit, before it answered."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class WorkerProcess:
    """Supervises one worker process, which is started for the first job and again after it ended."""

    def __init__(self, settings: WorkerSettings, *, environment: Mapping[str, str] | None = None) -> None:
        self._settings = settings
        self._more_environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._messages: queue.Queue[Message | None] = queue.Queue()

    @property
    def pid(self) -> int | None:
        """The process, None while there is none."""
        return None if self._process is None else self._process.pid

    def run(self, job: Job) -> Outcome:
        """The outcome of a job; a process that ends or exceeds the time limit gives WORKER_DIED or TIME_LIMIT."""
        begun = time.monotonic()
        try:
            answer = self._ask(job)
        except WorkerDied as death:
            self.close(grace_seconds=0.0)
            failed = Outcome(scan_id=job.scan_id, code=death.code.value, message=str(death))
            return _timed(failed, begun)
        if isinstance(answer, FilesSegmented):
            return Outcome(
                scan_id=job.scan_id,
                seconds=time.monotonic() - begun,
                key=answer.key,
                shape=answer.shape,
                spacing_mm=answer.spacing_mm,
                cut=answer.cut,
                kept=answer.kept,
            )
        code, message = _failure(answer)
        return _timed(Outcome(scan_id=job.scan_id, code=code, message=message), begun)

    def close(self, *, grace_seconds: float = _GRACE_SECONDS) -> None:
        """End the process and all that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(OSError):
            assert process.stdin is not None
            process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace_seconds)
        _end(process)

    def _ask(self, job: Job) -> Message:
        """Send the request and wait for its answer.

        Raises:
            WorkerDied: there is none.
        """
        if self._process is None or self._process.poll() is not None:
            self._start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        deadline = time.monotonic() + job.seconds
        try:
            process.stdin.write(encode(job.request))
            process.stdin.flush()
        except OSError as error:
            raise WorkerDied(ErrorCode.WORKER_DIED, "The worker ended before the scan was sent.") from error
        while True:
            message = self._next(deadline, f"No result after {job.seconds:.0f} s.")
            if isinstance(message, (FilesSegmented, Error, CancelledNotice)):
                return message

    def _next(self, deadline: float, late: str) -> Message:
        try:
            message = self._messages.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise WorkerDied(ErrorCode.TIME_LIMIT, late) from None
        if message is None:
            raise WorkerDied(ErrorCode.WORKER_DIED, "The worker process ended before it answered.")
        return message

    def _start(self) -> None:
        self.close(grace_seconds=0.0)
        self._messages = queue.Queue()
        try:
            process = subprocess.Popen(
                self._settings.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # The log names paths.
                stderr=None if self._settings.verbose else subprocess.DEVNULL,
                env=_environment({**os.environ, **self._more_environment}, self._settings.threads),
                start_new_session=True,
            )
        except OSError as error:
            raise WorkerDied(ErrorCode.WORKER_DIED, f"No worker can be started ({error.strerror}).") from error
        self._process = process
        assert process.stdout is not None
        threading.Thread(target=_receive, args=(process.stdout, self._messages), daemon=True).start()
        hello = self._next(time.monotonic() + START_SECONDS, "The worker did not start.")
        if not isinstance(hello, Hello):
            raise WorkerDied(ErrorCode.WORKER_DIED, "The worker did not say hello.")


def _timed(outcome: Outcome, begun: float) -> Outcome:
    return replace(outcome, seconds=time.monotonic() - begun)


def _receive(stream: IO[bytes], messages: queue.Queue[Message | None]) -> None:
    """Put the messages of a worker into a queue, and None at its end or at a line that is no message."""
    with stream, suppress(DiffusionSegmentError, OSError, ValueError):
        for line in stream:
            messages.put(decode(line))
    messages.put(None)


def _failure(answer: Message) -> tuple[str, str]:
    if isinstance(answer, Error):
        return answer.code, answer.message
    return ErrorCode.CANCELLED.value, "Cancelled."


def _environment(environment: Mapping[str, str], threads: int) -> dict[str, str]:
    paths = (str(_PACKAGE_FOLDER), environment.get("PYTHONPATH"))
    return {
        **environment,
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it started."""
    started: Sequence[psutil.Process] = ()
    with suppress(psutil.Error):
        started = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in started:
        with suppress(psutil.Error):
            child.kill()
    process.wait()
