"""The dispatcher: keeps every worker busy, and tries once more what died, hung or had too little memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from ..errors import DiffusionSegmentError, ErrorCode
from .executor import Executor
from .scan import Job, Outcome

MAX_ATTEMPTS = 2
# What another attempt may change; any other error of a scan is final.
_RETRIED = frozenset(
    code.value
    for code in (
        ErrorCode.WORKER_DIED,
        ErrorCode.TIME_LIMIT,
        ErrorCode.OUT_OF_MEMORY,
        ErrorCode.OUT_OF_GPU_MEMORY,
        ErrorCode.NO_DEVICE,
    )
)

# These are not about a scan: every other scan would fail in the same way.
_FATAL = frozenset(
    code.value
    for code in (
        ErrorCode.MODEL_UNKNOWN,
        ErrorCode.WEIGHTS_MISSING,
        ErrorCode.WEIGHTS_CORRUPT,
        ErrorCode.NO_TORCH,
        ErrorCode.PACKAGE_MISSING,
        ErrorCode.OPTION,
        ErrorCode.DISK_FULL,
        ErrorCode.OUTPUT_UNWRITABLE,
        ErrorCode.PROTOCOL,
    )
)


def dispatch(jobs: Iterable[Job], executor: Executor, record: Callable[[Outcome], None]) -> None:
    """Run all jobs and record one outcome for each; jobs are taken from the iterable as workers become free.

    Scans that are tried once more wait until all others have begun, so that they do not delay them.

    Raises:
        DiffusionSegmentError: an error that is not about one scan, such as a full disk or missing weights.
    """
    waiting, running = iter(jobs), dict[str, tuple[Job, int]]()
    again: deque[tuple[Job, int]] = deque()
    while True:
        while len(running) < executor.workers and (taken := _next(waiting, again)) is not None:
            job, attempt = taken
            running[job.scan_id] = (job, attempt)
            executor.submit(job)
        if not running:
            return
        outcome = executor.next_outcome()
        job, attempt = running.pop(outcome.scan_id)
        if outcome.code in _FATAL:
            raise DiffusionSegmentError(
                ErrorCode(outcome.code), outcome.message, hint="Mend this, then go on with --resume."
            )
        if outcome.code in _RETRIED and attempt < MAX_ATTEMPTS:
            again.append((job, attempt + 1))
        else:
            record(replace(outcome, attempts=attempt))


def _next(waiting: Iterator[Job], again: deque[tuple[Job, int]]) -> tuple[Job, int] | None:
    if (job := next(waiting, None)) is not None:
        return job, 1
    return again.popleft() if again else None
