"""Deletes images, results and records of series whose time has passed."""

from __future__ import annotations

from .image_store import ImageStore
from .ledger import FINAL, Job, Ledger, Origin
from .settings import HOUR, Limits

_DAY = 24 * HOUR


class Retention:
    """Keeps nothing longer than the limits say.

    The record of a fetched series, without its images, is kept while its study can still be found by a search of the
    last `search_days` days: it would be fetched again otherwise.
    """

    def __init__(self, ledger: Ledger, store: ImageStore, limits: Limits, *, search_days: int = 0) -> None:
        self._ledger, self._store = ledger, store
        self._retention_s = limits.retention_s
        self._searched_s = (search_days + 1) * _DAY if search_days else 0.0

    def step(self) -> None:
        """Delete what is due."""
        for job in self._ledger.jobs(*FINAL):
            age_s = self._ledger.now - job.changed
            if age_s >= self._retention_s:
                self._delete(job, age_s)

    def _delete(self, job: Job, age_s: float) -> None:
        self._store.remove_job(job.id)
        latest = self._ledger.latest_job(job.series_uid)
        if job.origin is Origin.DIMSE or age_s >= self._searched_s:
            self._ledger.forget(job, remove_images=lambda: self._store.remove_series(job.series_uid))
        elif latest is not None and latest.id == job.id:
            self._store.remove_series(job.series_uid)
