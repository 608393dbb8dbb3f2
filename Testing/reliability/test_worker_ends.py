"""A killed worker, a removed folder, two workers at once: reported as errors, and the next request works."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.buffers import open_buffer
from DiffusionSegmentLib.worker.worker_state import WorkerState
from worker.conftest import Session

from .endurance import ENGINE, children, endure

Open = Callable[[], Session]


@pytest.fixture
def openSession() -> Iterator[Open]:
    opened: list[Session] = []

    def open_() -> Session:
        opened.append(Session(ENGINE))
        return opened[-1]

    yield open_
    for session in opened:
        session.client.close()


@pytest.fixture
def session(openSession: Open) -> Session:
    return openSession()


def starting(session: Session) -> int:
    session.segment(steps=200)
    assert session.client.state is WorkerState.STARTING
    process = session.transports[-1]._process
    assert process is not None
    return process.pid


def ready(session: Session) -> int:
    session.segment()
    session.first("finished")
    return session.pid


def busy(session: Session) -> int:
    session.segment(steps=200)
    session.until(lambda: session.client.state is WorkerState.BUSY)
    return session.pid


def cancelling(session: Session) -> int:
    pid = busy(session)
    os.kill(pid, signal.SIGSTOP)
    session.client.cancel()
    assert session.client.state is WorkerState.CANCELLING
    return pid


def failed(session: Session) -> int:
    """The worker is killed while it starts; there is no process afterwards."""
    pid = starting(session)
    os.kill(pid, signal.SIGKILL)
    session.until(lambda: session.client.state is WorkerState.FAILED)
    return 0


@pytest.mark.parametrize("reach", [starting, ready, busy, cancelling, failed], ids=lambda reach: reach.__name__)
def test_a_worker_killed_in_any_state_is_replaced_and_leaves_no_process(
    session: Session, reach: Callable[[Session], int]
) -> None:
    pid = reach(session)
    if pid:
        os.kill(pid, signal.SIGKILL)
    session.until(
        lambda: not Path(f"/proc/{pid}").exists() and session.client.state in (WorkerState.READY, WorkerState.FAILED)
    )
    errors = [error for name, error in session.events if name == "failed"]
    assert [error.code for error in errors] == ([] if reach is ready else [ErrorCode.WORKER_DIED])
    assert all(error.hint for error in errors)
    assert not session.client.running
    session.events.clear()
    session.segment()
    session.first("finished")
    session.client.close()
    assert pid not in children()


def test_a_removed_session_folder_is_created_again(session: Session) -> None:
    session.segment()
    session.first("finished")
    assert session.client._folder is not None
    shutil.rmtree(session.client._folder)
    session.events.clear()
    session.segment()
    session.first("finished")


def test_a_session_folder_removed_during_a_run_is_reported(session: Session) -> None:
    session.segment(steps=20)
    session.first("progress")
    assert session.client._folder is not None
    shutil.rmtree(session.client._folder)
    error = session.first("failed")
    assert error.code in (ErrorCode.OUTPUT_UNWRITABLE, ErrorCode.INPUT_MISSING)
    session.events.clear()
    session.segment()
    session.first("finished")


def test_two_workers_at_once_do_not_interfere(openSession: Open) -> None:
    first, second = openSession(), openSession()
    second.array = -first.array
    first.segment(steps=10, seed=1)
    second.segment(steps=10, seed=2)
    results = [session.first("finished") for session in (first, second)]
    assert [result.report["seed"] for result in results] == [1, 2]
    for session, result in zip((first, second), results, strict=True):
        assert (open_buffer(result.labels) == (session.array > 0)).all()
    assert first.pid != second.pid


def test_a_lost_device_is_reported_and_the_next_run_has_a_new_process(session: Session) -> None:
    """After such an error the process can no longer use the device."""
    session.segment(organs=("device lost",))
    error = session.first("failed")
    assert error.code is ErrorCode.NO_DEVICE
    assert "again" in error.hint
    session.until(lambda: session.client.state is WorkerState.STOPPED)
    pid = session.pid
    session.events.clear()
    session.segment()
    session.first("finished")
    assert session.pid != pid


def test_a_request_id_with_a_wildcard_removes_no_other_buffers(session: Session, tmp_path: Path) -> None:
    other = tmp_path / "7-labels.raw"
    other.write_bytes(b"of another run")
    session.client._newRequest = lambda: ("*", tmp_path)  # type: ignore[method-assign]
    session.segment(organs=("refuse",))
    session.first("failed")
    assert other.exists()


def test_jumps_of_the_system_clock_do_not_end_or_delay_a_worker(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.segment(steps=10)
    day = 86400.0
    jumps = iter([day, -day, 400 * day] * 1000)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    session.first("finished", seconds=5)


def test_cycles_and_clicks_leak_nothing() -> None:
    endured = endure(cycles=25, clicks=25, seed=2)
    assert endured.leaks == []
    assert sum(endured.done.values()) == 50


def test_a_request_that_is_refused_during_a_run_writes_nothing(session: Session) -> None:
    session.segment(steps=50)
    files = session.files()
    with pytest.raises(DiffusionSegmentError):
        session.segment()
    assert session.files() == files
