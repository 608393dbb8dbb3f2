"""A warm worker process and its supervisor: it answers every job, whatever happens to the process."""

from __future__ import annotations

import queue
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..errors import ErrorCode
from ..process.worker_child import WorkerChild
from ..protocol.messages import CancelledNotice, Error, FilesSegmented, Hello, Message
from .scan import Job, Outcome

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
        threads = {"OMP_NUM_THREADS": str(settings.threads)}
        self._child = WorkerChild(
            settings.command, environment={**(environment or {}), **threads}, show_log=settings.verbose
        )

    @property
    def pid(self) -> int | None:
        """The process, None while there is none."""
        return self._child.pid

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
        self._child.end(grace_seconds=grace_seconds)

    def _ask(self, job: Job) -> Message:
        """Send the request and wait for its answer.

        Raises:
            WorkerDied: there is none.
        """
        if not self._child.running:
            self._start()
        deadline = time.monotonic() + job.seconds
        self._child.send(job.request)
        while True:
            message = self._next(deadline, f"No result after {job.seconds:.0f} s.")
            if isinstance(message, (FilesSegmented, Error, CancelledNotice)):
                return message

    def _next(self, deadline: float, late: str) -> Message:
        try:
            message = self._child.receive(deadline - time.monotonic())
        except queue.Empty:
            raise WorkerDied(ErrorCode.TIME_LIMIT, late) from None
        if message is None:
            raise WorkerDied(ErrorCode.WORKER_DIED, "The worker process ended before it answered.")
        return message

    def _start(self) -> None:
        try:
            self._child.start()
        except OSError as error:
            raise WorkerDied(ErrorCode.WORKER_DIED, f"No worker can be started ({error.strerror}).") from error
        hello = self._next(time.monotonic() + START_SECONDS, "The worker did not start.")
        if not isinstance(hello, Hello):
            raise WorkerDied(ErrorCode.WORKER_DIED, "The worker did not say hello.")


def _timed(outcome: Outcome, begun: float) -> Outcome:
    return replace(outcome, seconds=time.monotonic() - begun)


def _failure(answer: Message) -> tuple[str, str]:
    if isinstance(answer, Error):
        return answer.code, answer.message
    return ErrorCode.CANCELLED.value, "Cancelled."
