"""Runs of ready series, one after the other, and what happens after a failed one."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from ..errors import DiffusionSegmentError, ErrorCode, from_os_error
from .image_store import ImageStore
from .ledger import Job, JobState, Ledger
from .result import ResultWriter
from .settings import Limits

_NO_SPACE = (ErrorCode.DISK_FULL, ErrorCode.OUTPUT_UNWRITABLE)
# Reasons that may be gone at the next attempt; any other lies in the series itself.
_PASSING = (
    ErrorCode.WORKER_DIED,
    ErrorCode.OUT_OF_MEMORY,
    ErrorCode.OUT_OF_GPU_MEMORY,
    ErrorCode.NO_DEVICE,
    ErrorCode.INTERNAL,
    ErrorCode.PROTOCOL,
)
# The exit status of missing weights, packages and devices.
_MISSING = 3

_log = logging.getLogger(__name__)


@dataclass
class RunTimes:
    """Number and total seconds of finished runs."""

    count: int = 0
    seconds: float = 0.0


class Runs:
    """Segments ready series. `times` counts those that succeeded."""

    def __init__(self, ledger: Ledger, store: ImageStore, writer: ResultWriter, limits: Limits) -> None:
        self.times = RunTimes()
        self._ledger, self._store, self._writer, self._limits = ledger, store, writer, limits

    def step(self) -> None:
        """Run the series that waits longest, if there is one."""
        for job in self._ledger.jobs(JobState.READY, due=True)[:1]:
            images = self._ledger.start(job)
            if images is not None:
                self._run(job, images)

    def _run(self, job: Job, images: list[str]) -> None:
        began = time.monotonic()
        try:
            folder = self._store.job_folder(job.id)
            scan = folder / "scan"
            self._store.link_images(job.series_uid, images, scan)
            self._writer.write(
                scan,
                folder,
                job_id=job.id,
                incomplete=job.incomplete,
                replaces=self._ledger.has_earlier_result(job),
            )
        except DiffusionSegmentError as error:
            self._fail(job, error)
        except OSError as error:
            self._fail(job, from_os_error(error, "the folder of the node"))
        except Exception as error:
            self._fail(job, DiffusionSegmentError(ErrorCode.INTERNAL, type(error).__name__))
        else:
            seconds = time.monotonic() - began
            self.times.count += 1
            self.times.seconds += seconds
            self._ledger.advance(job, JobState.PRODUCED)
            _log.info("job %s: segmented in %.1f s", job.id, seconds)

    def _fail(self, job: Job, error: DiffusionSegmentError) -> None:
        """Postpone, give up or reject; messages stay out of the log, because they may quote a header."""
        code = error.code
        if code is ErrorCode.CANCELLED:
            # The node stops; the next one repeats the run.
            return
        _log.warning("job %s: %s", job.id, code.value)
        if code in _NO_SPACE or (code in _PASSING and job.attempts + 1 < self._limits.max_runs):
            delays = self._limits.retry_s
            delay = delays[min(job.attempts, len(delays) - 1)]
            self._ledger.postpone(job, JobState.READY, code=code.value, seconds=delay)
        else:
            # Missing weights or packages, too, are no fault of the series.
            state = JobState.FAILED if code in _PASSING or error.exit_status == _MISSING else JobState.REJECTED
            self._ledger.advance(job, state, code=code.value)
            self._store.remove_job(job.id)
