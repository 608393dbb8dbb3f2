"""Fetches new series from an archive that does not send them: a search by DICOMweb, repeated."""

from __future__ import annotations

import datetime
import logging
from collections import Counter

from .completeness import Transfer
from .destination import TransferError
from .dicomweb_archive import ArchivedSeries, DicomwebArchive
from .image_store import ImageStore
from .instance import read_instance
from .ledger import JobState, Ledger, Origin
from .settings import Limits
from .taking import take

SET_ASIDE = "SET_ASIDE"

_log = logging.getLogger(__name__)


class Search:
    """Looks for series of a modality in the studies of the last `days` days; the ledger knows those that were fetched.

    `counts` has the number of images by what became of them.
    """

    def __init__(
        self, archive: DicomwebArchive, ledger: Ledger, store: ImageStore, limits: Limits, *, modality: str, days: int
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._archive, self._ledger, self._store, self._limits = archive, ledger, store, limits
        self._modality, self._days = modality, days
        self._sizes: dict[str, int] = {}

    def step(self) -> None:
        """Search once, and fetch the series that have grown neither since the last search nor are known."""
        first = datetime.date.today() - datetime.timedelta(days=self._days)
        sizes: dict[str, int] = {}
        try:
            for series in self._archive.series_since(first, self._modality):
                sizes[series.series_uid] = series.images or 0
                if self._is_stable(series) and self._is_new(series):
                    self._fetch(series)
        except TransferError as error:
            _log.warning("search of the archive: %s", error.code)
        self._sizes = sizes

    def _is_stable(self, series: ArchivedSeries) -> bool:
        """Whether a series had as many images in the search before: it may still be arriving there otherwise."""
        return self._sizes.get(series.series_uid) == (series.images or 0)

    def _is_new(self, series: ArchivedSeries) -> bool:
        """Whether there are images to fetch of a series, and room for it."""
        job = self._ledger.latest_job(series.series_uid)
        if job is not None:
            unfinished = job.state is JobState.RECEIVING and job.transfer is not Transfer.RELEASED
            return job.origin is Origin.DICOMWEB and (unfinished or (series.images or 0) > job.listed)
        room = self._ledger.unfinished() < self._limits.max_queue
        return room and self._store.free_bytes() >= self._limits.min_free_bytes

    def _fetch(self, series: ArchivedSeries) -> None:
        """Fetch what is missing; an interrupted fetch continues with the next search."""
        present = self._archive.instances(series.study_uid, series.series_uid)
        for sop_uid in present:
            if self._ledger.digest_of(sop_uid) is None:
                self._put(self._archive.fetch(series.study_uid, series.series_uid, sop_uid))
        job = self._ledger.latest_job(series.series_uid)
        if job is None:
            self._ledger.set_aside(series.series_uid, series.study_uid, listed=len(present), code=SET_ASIDE)
        else:
            self._ledger.fetched(job, listed=len(present))

    def _put(self, data: bytes) -> None:
        instance = read_instance(data, modality=self._modality)
        if instance is None or instance.set_aside:
            self.counts["unreadable" if instance is None else instance.set_aside] += 1
            return
        self.counts[take(instance, data, Origin.DICOMWEB, self._store, self._ledger).value] += 1
