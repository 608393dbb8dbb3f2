"""Decides of every series that arrives whether it is complete, and whether it fits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from .completeness import Arrival, Completeness, completeness, evenly_spaced
from .destination import Destination, TransferError
from .ledger import Job, JobState, Ledger, Origin
from .settings import Limits, Patience

TOO_FEW_IMAGES = "TOO_FEW_IMAGES"
_ASK_AGAIN_S = 10.0

_log = logging.getLogger(__name__)


class Intake:
    """Sets complete series ready. `archive_of` gives the archive that may know how many images a series has."""

    def __init__(
        self, ledger: Ledger, patience: Patience, limits: Limits, archive_of: Callable[[Job], Destination]
    ) -> None:
        self._ledger, self._patience, self._limits = ledger, patience, limits
        self._archive_of = archive_of
        self._asked: dict[str, float] = {}

    def step(self) -> None:
        """Look once at all series that arrive."""
        jobs = self._ledger.jobs(JobState.RECEIVING)
        self._asked = {job.id: self._asked[job.id] for job in jobs if job.id in self._asked}
        for job in jobs:
            self._decide(job)

    def _decide(self, job: Job) -> None:
        silent_s = self._ledger.now - job.arrived
        images = self._ledger.images(job.series_uid)
        positions = [position for _, position, _ in images if position is not None]
        arrival = Arrival(
            silent_s=silent_s,
            transfer=job.transfer,
            received=len(images),
            expected=self._expected(job, silent_s),
            evenly_spaced=any(frames > 1 for _, _, frames in images) or evenly_spaced(positions),
        )
        verdict = completeness(arrival, self._patience)
        if verdict is Completeness.WAIT:
            return
        if sum(frames for _, _, frames in images) < self._limits.min_slices:
            self._ledger.advance(job, JobState.REJECTED, code=TOO_FEW_IMAGES)
            _log.info("job %s: rejected, %s", job.id, TOO_FEW_IMAGES)
        elif self._ledger.complete(job, incomplete=verdict is Completeness.INCOMPLETE):
            _log.info("job %s: %d images, %s", job.id, len(images), verdict.value)

    def _expected(self, job: Job, silent_s: float) -> int | None:
        """The number of images that the archive has, asked for once the series is quiet, and not too often."""
        if job.origin is Origin.DICOMWEB:
            # The search has counted them.
            return job.expected
        now = time.monotonic()
        if silent_s < self._patience.quiet_s or now - self._asked.get(job.id, -_ASK_AGAIN_S) < _ASK_AGAIN_S:
            return job.expected
        self._asked[job.id] = now
        try:
            expected = self._archive_of(job).images_of(job.study_uid, job.series_uid)
        except TransferError:
            return job.expected
        if expected != job.expected:
            self._ledger.expect(job, expected)
        return expected
