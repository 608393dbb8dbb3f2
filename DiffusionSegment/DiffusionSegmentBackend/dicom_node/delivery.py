"""Delivery of results: sent, then looked for in the archive, and repeated until they are there."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable

from .destination import Destination, TransferError, name_of
from .image_store import ImageStore
from .ledger import Job, JobState, Ledger
from .result import result_files
from .settings import Limits

NOT_FOUND = "NOT_FOUND"
_MAX_LOOKS = 3
_LOOK_S = 2.0

_log = logging.getLogger(__name__)


class Delivery:
    """Sends produced results to the archive of their job, and checks that they are there."""

    def __init__(
        self, ledger: Ledger, store: ImageStore, limits: Limits, archive_of: Callable[[Job], Destination]
    ) -> None:
        self._ledger, self._store, self._limits = ledger, store, limits
        self._archive_of = archive_of

    def step(self) -> None:
        """Try everything once whose time has come."""
        for job in self._ledger.jobs(JobState.PRODUCED, due=True):
            if not self._ledger.superseded(job):
                self._attempt(job, self._send)
        for job in self._ledger.jobs(JobState.SENT, due=True):
            self._attempt(job, self._verify)

    def _attempt(self, job: Job, action: Callable[[Job], None]) -> None:
        try:
            action(job)
        except TransferError as error:
            _log.warning("job %s: %s", job.id, error.code)
            self._repeat(job, job.state, error.code)

    def _repeat(self, job: Job, state: JobState, code: str) -> None:
        """Try again later from a state, or give up."""
        if self._ledger.now - job.changed > self._limits.give_up_s:
            self._ledger.advance(job, JobState.FAILED, code=code)
            return
        delays = self._limits.retry_s
        delay = delays[min(job.attempts, len(delays) - 1)]
        self._ledger.postpone(job, state, code=code, seconds=delay)

    def _send(self, job: Job) -> None:
        folder = self._store.job_folder(job.id)
        files = result_files(folder)
        if not all(file.is_file() for file in files):
            # Deleted by hand: the images are still there.
            self._ledger.advance(job, JobState.READY)
            return
        shutil.rmtree(folder / "scan", ignore_errors=True)
        self._archive_of(job).send(files)
        self._ledger.sent(job)
        _log.info("job %s: sent", job.id)

    def _verify(self, job: Job) -> None:
        files = result_files(self._store.job_folder(job.id))
        found = self._archive_of(job).has([name_of(file) for file in files])
        if found is False and job.attempts < _MAX_LOOKS:
            # An archive may take a moment to index what it has accepted.
            self._ledger.postpone(job, JobState.SENT, code=NOT_FOUND, seconds=_LOOK_S)
        elif found is False:
            self._repeat(job, JobState.PRODUCED, NOT_FOUND)
        else:
            self._ledger.advance(job, JobState.DONE, verified=found is True)
            self._store.remove_job(job.id)
            _log.info("job %s: %s", job.id, "found in the archive" if found else "the archive cannot be asked")
