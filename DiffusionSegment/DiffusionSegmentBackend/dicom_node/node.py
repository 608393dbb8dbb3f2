"""The node: its services, and the loops that take series from arrival to delivery."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable

from ..errors import DiffusionSegmentError, ErrorCode
from ..models.manifest import find_model, read_description
from .delivery import Delivery
from .destination import Destination
from .dicomweb_archive import DicomwebArchive
from .dimse_archive import DimseArchive
from .image_store import ImageStore
from .intake import Intake
from .ledger import UNFINISHED, Job, Ledger, Origin
from .monitoring import MonitoringServer, NodeStatus
from .receiver import Receiver
from .result import ResultWriter
from .retention import Retention
from .runs import Runs
from .search import Search
from .settings import NodeSettings
from .worker_process import WorkerProcess

_STOP_S = 10.0
_RETENTION_EVERY_S = 10.0

_log = logging.getLogger(__name__)


class DicomNode:
    """A node that runs from `start` to `stop`.

    Raises:
        DiffusionSegmentError: MODEL_UNKNOWN, BUSY for a folder of another node, OPTION, INPUT_MISSING or
            INPUT_UNREADABLE for addresses, certificates and files of the settings.
    """

    def __init__(self, settings: NodeSettings) -> None:
        limits = settings.limits
        modality = read_description(find_model(settings.options.model)).modality
        self._settings = settings
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._dicomweb = DicomwebArchive(settings.dicomweb) if settings.dicomweb is not None else None
        self._dimse = _dimse_archive(settings)
        self._store = ImageStore(settings.folder)
        self._ledger = Ledger(settings.folder / "ledger.sqlite")
        self._worker = WorkerProcess(settings.worker)
        writer = ResultWriter(self._worker, settings.options, run_s=limits.run_s)
        self._intake = Intake(self._ledger, settings.patience, limits, self._archive_of)
        self._runs = Runs(self._ledger, self._store, writer, limits)
        self._delivery = Delivery(self._ledger, self._store, limits, self._archive_of)
        days = settings.dicomweb.days if settings.dicomweb is not None else 0
        self._retention = Retention(self._ledger, self._store, limits, search_days=days)
        self._receiver = self._search = None
        if settings.listener is not None:
            self._receiver = Receiver(
                settings.aet, settings.listener, limits, self._ledger, self._store, modality=modality
            )
        if self._dicomweb is not None:
            self._search = Search(self._dicomweb, self._ledger, self._store, limits, modality=modality, days=days)
        self._monitoring: MonitoringServer | None = None

    def start(self) -> tuple[int | None, int | None]:
        """Continue where an earlier process ended; returns the ports of C-STORE and of monitoring, if they are open.

        Raises:
            DiffusionSegmentError: OPTION for a port that is taken.
        """
        self._ledger.recover()
        health = self._settings.health
        self._monitoring = MonitoringServer(health, self.status) if health is not None else None
        port = self._receiver.start() if self._receiver is not None else None
        pause_s = self._settings.poll_s
        self._repeat("intake", self._intake.step, pause_s)
        self._repeat("runs", self._runs.step, pause_s)
        self._repeat("delivery", self._delivery.step, pause_s)
        self._repeat("retention", self._retention.step, max(pause_s, min(_RETENTION_EVERY_S, 60 * pause_s)))
        if self._search is not None:
            self._repeat("search", self._search.step, self._settings.search_s)
        return port, self._monitoring.port if self._monitoring is not None else None

    def stop(self) -> None:
        """Close the ports and end the worker; a run in progress is repeated after the next start."""
        self._stopping.set()
        if self._receiver is not None:
            self._receiver.stop()
        self._worker.close()
        for thread in self._threads:
            thread.join(_STOP_S)
        if self._monitoring is not None:
            self._monitoring.stop()
        self._ledger.close()

    def status(self) -> NodeStatus:
        """The state of the node now."""
        images: Counter[str] = Counter()
        for source in (self._receiver, self._search):
            images.update(source.counts if source is not None else {})
        waiting = self._ledger.jobs(*UNFINISHED)
        counts, free = self._ledger.counts(), self._store.free_bytes()
        faults = [f"the loop {thread.name} has ended" for thread in self._threads if not thread.is_alive()]
        if free < self._settings.limits.min_free_bytes:
            faults.append("the disk is full")
        if len(waiting) >= self._settings.limits.max_queue:
            faults.append("the queue is full")
        return NodeStatus(
            jobs=counts,
            images=images,
            oldest_s=max((self._ledger.now - job.arrived for job in waiting), default=0.0),
            free_bytes=free,
            runs=self._runs.times.count,
            run_s=self._runs.times.seconds,
            worker_starts=self._worker.starts,
            faults=tuple(faults),
        )

    def _archive_of(self, job: Job) -> Destination:
        """Where the result of a job goes: back to where the series came from, or to the only archive there is."""
        if self._dicomweb is not None and (job.origin is Origin.DICOMWEB or self._dimse is None):
            return self._dicomweb
        assert self._dimse is not None
        return self._dimse

    def _repeat(self, name: str, step: Callable[[], None], pause_s: float) -> None:
        """Call a step again and again in a thread; an unexpected error ends the step, not the thread."""

        def loop() -> None:
            while not self._stopping.is_set():
                try:
                    step()
                except Exception as error:
                    # Its text may quote a header.
                    _log.error("%s: unexpected %s", name, type(error).__name__)
                self._stopping.wait(pause_s)

        self._threads.append(threading.Thread(target=loop, name=name, daemon=True))
        self._threads[-1].start()


def _dimse_archive(settings: NodeSettings) -> DimseArchive | None:
    if settings.forward is None:
        if settings.dicomweb is None:
            raise DiffusionSegmentError(
                ErrorCode.OPTION, "There is nowhere to send results.", hint="Name an archive: --forward or --dicomweb."
            )
        return None
    return DimseArchive(settings.forward, aet=settings.aet, tls=settings.forward_tls)
