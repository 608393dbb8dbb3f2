"""Delivery to an archive that refuses, loses or does not answer, and the end of what is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from DiffusionSegmentBackend.dicom_node.delivery import NOT_FOUND, Delivery
from DiffusionSegmentBackend.dicom_node.dimse_archive import DimseArchive
from DiffusionSegmentBackend.dicom_node.image_store import ImageStore
from DiffusionSegmentBackend.dicom_node.instance import Instance
from DiffusionSegmentBackend.dicom_node.ledger import Job, JobState, Ledger, Origin
from DiffusionSegmentBackend.dicom_node.result import result_files
from DiffusionSegmentBackend.dicom_node.retention import Retention
from DiffusionSegmentBackend.dicom_node.settings import Address, Limits
from fixtures.dicom_files import save, secondary_capture
from pydicom.uid import EncapsulatedPDFStorage, SegmentationStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from .test_ledger import Clock

LIMITS = Limits(retry_s=(60.0, 300.0), give_up_s=3600.0, retention_s=1000.0)


class Archive:
    """An archive that answers as a test says: statuses of C-STORE, and whether it finds what was sent."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.stored: list[str] = []
        self.keeps = True
        entity = AE(ae_title="PACS")
        for uid in (EncapsulatedPDFStorage, SegmentationStorage, StudyRootQueryRetrieveInformationModelFind):
            entity.add_supported_context(uid)
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_C_FIND, self._find)]
        server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        assert server is not None
        self.server = server
        self.client = DimseArchive(Address(aet="PACS", host="127.0.0.1", port=server.server_address[1]), aet="DIFFSEG")

    def _store(self, event: evt.Event) -> int:
        status = self.statuses.pop(0) if self.statuses else 0
        if status == 0 and self.keeps:
            self.stored.append(event.request.AffectedSOPInstanceUID)
        return status

    def _find(self, event: evt.Event) -> Iterator[tuple[int, object]]:
        if event.identifier.SOPInstanceUID in self.stored:
            yield 0xFF00, event.identifier


@pytest.fixture
def archive() -> Iterator[Archive]:
    opened = Archive()
    yield opened
    opened.server.shutdown()


class Produced:
    """A ledger with one produced job, its files, and the steps on it at the time of a clock."""

    def __init__(self, folder: Path, archive: DimseArchive) -> None:
        self.clock = Clock()
        self.store = ImageStore(folder)
        self.ledger = Ledger(folder / "ledger.sqlite", self.clock)
        instance = Instance(sop_uid="1.1", series_uid="1", study_uid="0")
        self.image = self.store.path_of("1", "1.1")
        self.store.put(self.image, b"an image")
        self.ledger.receive(instance, "a", Origin.DIMSE, file=self.image)
        self.ledger.complete(self.job, incomplete=False)
        self.ledger.start(self.job)
        self.ledger.advance(self.job, JobState.PRODUCED)
        files = result_files(self.store.job_folder(self.job.id))
        for number, (file, kind) in enumerate(zip(files, (SegmentationStorage, EncapsulatedPDFStorage), strict=True)):
            save(secondary_capture(number, colour=False, SOPClassUID=kind), file)
        self._delivery = Delivery(self.ledger, self.store, LIMITS, lambda job: archive)
        self._retention = Retention(self.ledger, self.store, LIMITS)

    @property
    def job(self) -> Job:
        (job,) = self.ledger.jobs(*JobState)
        return job

    def step(self, *, after_s: float = 0.0) -> tuple[JobState, str]:
        """State and code after a step."""
        self.clock.time += after_s
        self._delivery.step()
        self._retention.step()
        return self.job.state, self.job.code


@pytest.fixture
def produce(tmp_path: Path) -> Iterator[Callable[[DimseArchive], Produced]]:
    opened = []

    def start(archive: DimseArchive) -> Produced:
        opened.append(Produced(tmp_path / "node", archive))
        return opened[-1]

    yield start
    for produced in opened:
        produced.ledger.close()


Produce = Callable[[DimseArchive], Produced]


def test_a_result_is_sent_found_and_deleted(archive: Archive, produce: Produce) -> None:
    produced = produce(archive.client)
    assert produced.step() == (JobState.DONE, "")
    assert len(archive.stored) == 2
    assert not any(file.exists() for file in result_files(produced.store.job_folder(produced.job.id)))


def test_a_refused_result_is_sent_again_with_growing_pauses(archive: Archive, produce: Produce) -> None:
    archive.statuses = [0xA700, 0, 0xC001]
    produced = produce(archive.client)
    assert produced.step() == (JobState.PRODUCED, "STATUS_A700")
    assert produced.step(after_s=59) == (JobState.PRODUCED, "STATUS_A700")
    assert produced.step(after_s=1) == (JobState.PRODUCED, "STATUS_C001")
    assert produced.step(after_s=299) == (JobState.PRODUCED, "STATUS_C001")
    assert produced.step(after_s=1) == (JobState.DONE, "")


def test_a_warning_is_an_acceptance(archive: Archive, produce: Produce) -> None:
    archive.statuses = [0xB000, 0xB000]
    archive.stored = ["any"]
    produced = produce(archive.client)
    assert produced.step() == (JobState.SENT, NOT_FOUND)


def test_a_result_that_the_archive_lost_is_sent_again(archive: Archive, produce: Produce) -> None:
    archive.keeps = False
    produced = produce(archive.client)
    assert produced.step() == (JobState.SENT, NOT_FOUND)
    for _ in range(2):
        assert produced.step(after_s=2) == (JobState.SENT, NOT_FOUND)
    assert produced.step(after_s=2) == (JobState.PRODUCED, NOT_FOUND)
    archive.keeps = True
    assert produced.step(after_s=300) == (JobState.DONE, "")


def test_an_undeliverable_result_is_given_up_some_day(produce: Produce) -> None:
    produced = produce(DimseArchive(Address(aet="PACS", host="127.0.0.1", port=1), aet="DIFFSEG"))
    assert produced.step() == (JobState.PRODUCED, "UNREACHABLE")
    assert produced.step(after_s=3000) == (JobState.PRODUCED, "UNREACHABLE")
    assert produced.step(after_s=601) == (JobState.FAILED, "UNREACHABLE")


def test_an_archive_that_cannot_be_asked_is_believed(produce: Produce) -> None:
    entity = AE(ae_title="PACS")
    for uid in (EncapsulatedPDFStorage, SegmentationStorage, "1.2.840.10008.1.1"):
        entity.add_supported_context(uid)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda event: 0)])
    assert server is not None
    archive = DimseArchive(Address(aet="PACS", host="127.0.0.1", port=server.server_address[1]), aet="DIFFSEG")
    produced = produce(archive)
    assert (*produced.step(), produced.job.verified) == (JobState.DONE, "", False)
    server.shutdown()


def test_nothing_is_kept_longer_than_the_retention(archive: Archive, produce: Produce, tmp_path: Path) -> None:
    produced = produce(archive.client)
    produced.step()
    produced.step(after_s=999)
    assert produced.image.exists()
    produced.clock.time += 1
    produced._retention.step()
    assert produced.ledger.jobs(*JobState) == []
    assert [path for path in (tmp_path / "node").rglob("*") if path.is_file() and "ledger" not in path.name] == []
    produced.ledger.close()
    assert b"1.1" not in (tmp_path / "node" / "ledger.sqlite").read_bytes()
