"""The ledger: every image once, every series in one state, nothing lost when the process ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from DiffusionSegmentBackend.dicom_node.completeness import Transfer
from DiffusionSegmentBackend.dicom_node.instance import Instance
from DiffusionSegmentBackend.dicom_node.ledger import SUPERSEDED, Job, JobState, Ledger, Origin, Receipt
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode

FIRST = Instance(sop_uid="1.1", series_uid="1", study_uid="0", position_mm=1.0)
SECOND = replace(FIRST, sop_uid="1.2", position_mm=2.0)
THIRD = replace(FIRST, sop_uid="1.3", position_mm=3.0)


class Clock:
    """A clock that a test sets."""

    time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path, clock: Clock) -> Iterator[Ledger]:
    opened = Ledger(path, clock)
    yield opened
    opened.close()


def receive(ledger: Ledger, *instances: Instance, digest: str = "a") -> Receipt:
    for instance in instances:
        receipt = ledger.receive(instance, digest, Origin.DIMSE, file=Path(__file__))
    return receipt


def only(ledger: Ledger) -> Job:
    (job,) = ledger.jobs(*JobState)
    return job


def to(ledger: Ledger, state: JobState) -> Job:
    """The only job, taken to a state."""
    assert ledger.complete(only(ledger), incomplete=False)
    if state is not JobState.READY:
        assert ledger.start(only(ledger)) is not None
    if state not in (JobState.READY, JobState.RUNNING):
        ledger.advance(only(ledger), state)
    return only(ledger)


def test_images_of_a_series_share_a_job(ledger: Ledger) -> None:
    assert receive(ledger, FIRST, SECOND) is Receipt.NEW
    assert only(ledger).state is JobState.RECEIVING
    assert [sop_uid for sop_uid, _, _ in ledger.images("1")] == ["1.1", "1.2"]


def test_a_repeated_image_is_known_by_its_bytes(ledger: Ledger) -> None:
    receive(ledger, FIRST)
    assert receive(ledger, FIRST) is Receipt.DUPLICATE
    assert receive(ledger, FIRST, digest="b") is Receipt.CONFLICT
    assert ledger.digest_of("1.1") == "a"


@pytest.mark.parametrize("state", [state for state in JobState if state not in (JobState.RECEIVING, JobState.FAILED)])
def test_repeated_images_start_nothing(ledger: Ledger, state: JobState) -> None:
    receive(ledger, FIRST, SECOND)
    to(ledger, state)
    receive(ledger, FIRST, SECOND)
    assert only(ledger).state is state


def test_a_failed_series_starts_again_when_it_is_sent_again(ledger: Ledger) -> None:
    receive(ledger, FIRST)
    to(ledger, JobState.FAILED)
    receive(ledger, FIRST)
    assert only(ledger).state is JobState.RECEIVING


def test_an_image_that_comes_before_the_run_belongs_to_it(ledger: Ledger) -> None:
    receive(ledger, FIRST)
    stale = to(ledger, JobState.READY)
    receive(ledger, SECOND)
    assert only(ledger).state is JobState.RECEIVING
    assert ledger.start(stale) is None


def test_a_decision_about_a_series_counts_only_if_nothing_arrived_since(ledger: Ledger, clock: Clock) -> None:
    receive(ledger, FIRST)
    stale = only(ledger)
    clock.time += 1
    receive(ledger, SECOND)
    assert not ledger.complete(stale, incomplete=False)


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.PRODUCED, JobState.DONE])
def test_an_image_that_comes_after_the_start_opens_another_version(ledger: Ledger, state: JobState) -> None:
    receive(ledger, FIRST)
    first = to(ledger, state)
    receive(ledger, SECOND)
    assert {job.id == first.id: job.state for job in ledger.jobs(*JobState)} == {
        True: state,
        False: JobState.RECEIVING,
    }


def test_an_earlier_version_that_was_not_sent_is_superseded(ledger: Ledger) -> None:
    receive(ledger, FIRST)
    first = to(ledger, JobState.PRODUCED)
    receive(ledger, SECOND)
    assert ledger.superseded(first)
    assert [(job.state, job.code) for job in ledger.jobs(JobState.REJECTED)] == [(JobState.REJECTED, SUPERSEDED)]


def test_a_run_that_is_repeated_after_a_restart_yields_to_a_later_version(ledger: Ledger) -> None:
    receive(ledger, FIRST)
    first = to(ledger, JobState.RUNNING)
    receive(ledger, SECOND)
    ledger.recover()
    assert ledger.start(next(job for job in ledger.jobs(JobState.READY))) is None
    assert ledger.latest_job("1") != first
    assert [job.code for job in ledger.jobs(JobState.REJECTED)] == [SUPERSEDED]


def test_a_restart_repeats_runs_and_takes_open_associations_as_interrupted(path: Path, clock: Clock) -> None:
    ledger = Ledger(path, clock)
    receive(ledger, FIRST)
    to(ledger, JobState.RUNNING)
    receive(ledger, replace(SECOND, series_uid="2"))
    ledger.close()
    ledger = Ledger(path, clock)
    ledger.recover()
    assert {job.series_uid: (job.state, job.transfer) for job in ledger.jobs(*JobState)} == {
        "1": (JobState.READY, Transfer.INTERRUPTED),
        "2": (JobState.RECEIVING, Transfer.INTERRUPTED),
    }
    ledger.close()


def test_a_postponed_job_waits_for_its_time(ledger: Ledger, clock: Clock) -> None:
    receive(ledger, FIRST)
    ledger.postpone(to(ledger, JobState.RUNNING), JobState.READY, code="WORKER_DIED", seconds=60)
    assert ledger.jobs(JobState.READY, due=True) == []
    clock.time += 60
    (job,) = ledger.jobs(JobState.READY, due=True)
    assert (job.attempts, job.code) == (1, "WORKER_DIED")


def test_forgetting_the_last_version_forgets_the_images(ledger: Ledger) -> None:
    removed: list[str] = []
    receive(ledger, FIRST)
    to(ledger, JobState.DONE)
    receive(ledger, SECOND)
    first, second = ledger.jobs(*JobState)
    assert ledger.forget(first, remove_images=lambda: removed.append("first"))
    assert removed == []
    assert ledger.forget(second, remove_images=lambda: removed.append("second"))
    assert (removed, ledger.images("1")) == (["second"], [])


def test_a_job_that_was_opened_again_is_not_forgotten(ledger: Ledger) -> None:
    receive(ledger, FIRST)
    failed = to(ledger, JobState.FAILED)
    receive(ledger, FIRST)
    assert not ledger.forget(failed, remove_images=lambda: pytest.fail("images removed"))


def test_an_image_whose_file_was_deleted_is_not_recorded(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ledger.receive(FIRST, "a", Origin.DIMSE, file=tmp_path / "gone.dcm")
    assert ledger.jobs(*JobState) == []


def test_a_second_node_is_refused(ledger: Ledger, path: Path) -> None:
    receive(ledger, FIRST)
    with pytest.raises(DiffusionSegmentError) as caught:
        Ledger(path)
    assert caught.value.code is ErrorCode.BUSY


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_text("no database, but long enough to be taken for one by its length" * 20)
    with pytest.raises(DiffusionSegmentError) as caught:
        Ledger(tmp_path / "ledger.sqlite")
    assert caught.value.code is ErrorCode.INPUT_UNREADABLE
