"""Faults that must end in words and a usable client, never in one that waits for ever."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from DiffusionSegmentBackend.errors import ErrorCode
from DiffusionSegmentBackend.protocol.messages import MAX_LINE_BYTES
from DiffusionSegmentLib.worker.worker_state import WorkerState

if TYPE_CHECKING:
    from .conftest import Session

    OpenSession = Callable[[list[str]], Session]
    FaultyWorker = Callable[[str], list[str]]


def isAlive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


@pytest.mark.parametrize("mishap", ["unspeakable", "numpy", "exit"])
def test_whatever_goes_wrong_in_a_run_is_answered_and_the_worker_lives_on(session: Session, mishap: str) -> None:
    session.segment(organs=(mishap,))
    assert session.first("failed", seconds=5).code is ErrorCode.INTERNAL
    assert session.files() == []
    session.segment()
    session.first("finished", seconds=5)


def test_running_out_of_memory_while_handing_over_leaves_no_file(session: Session) -> None:
    session.segment(organs=("late memory",))
    assert session.first("failed").code is ErrorCode.OUT_OF_MEMORY
    assert session.files() == []


def test_an_endless_line_is_one_error_and_the_next_message_is_understood(engine: list[str]) -> None:
    lines = b"x" * (2 * MAX_LINE_BYTES + 5) + b'\n{"type":"ping","id":"p"}\n'
    done = subprocess.run(engine, input=lines, capture_output=True, timeout=30, check=True)
    assert [json.loads(line)["type"] for line in done.stdout.splitlines()] == ["hello", "error", "pong"]


def test_a_broken_line_of_the_worker_does_not_wedge_the_client(
    openSession: OpenSession, faultyWorker: FaultyWorker, engine: list[str]
) -> None:
    session = openSession(faultyWorker("rubbish"))
    session.segment()
    assert session.first("failed", seconds=5).code is ErrorCode.PROTOCOL
    session.succeedsWith(engine)


def test_an_error_code_of_a_later_version_is_shown_all_the_same(
    openSession: OpenSession, faultyWorker: FaultyWorker
) -> None:
    session = openSession(faultyWorker("new code"))
    session.segment()
    error = session.first("failed", seconds=5)
    assert (error.message, error.hint) == ("Trouble.", "Wait.")
    assert session.client.state is WorkerState.READY


def test_a_worker_of_another_version_is_refused_and_ended(
    openSession: OpenSession, faultyWorker: FaultyWorker, engine: list[str]
) -> None:
    session = openSession(faultyWorker("foreign"))
    session.segment()
    assert "another version" in session.first("failed", seconds=5).message
    assert session.client.state is WorkerState.FAILED
    assert not isAlive(session.pid)
    session.succeedsWith(engine)


def test_a_program_that_does_not_exist_is_reported_as_a_failure(openSession: OpenSession, engine: list[str]) -> None:
    session = openSession(["/nonexistent/python"])
    session.segment()
    assert session.first("failed", seconds=5).code is ErrorCode.WORKER_DIED
    assert session.client.state is WorkerState.FAILED
    session.succeedsWith(engine)


def test_the_log_of_a_crashed_worker_can_still_be_read(session: Session) -> None:
    logs: list[str] = []
    session.client.failed.connect(lambda *_: logs.append(session.client.log()))
    session.segment(organs=("crash",))
    session.first("failed")
    assert "stray print" in logs[0]


def test_a_result_that_crosses_a_cancel_is_dropped(openSession: OpenSession, faultyWorker: FaultyWorker) -> None:
    session = openSession(faultyWorker("crossing"))
    session.segment()
    session.until(lambda: session.client.state is WorkerState.BUSY)
    session.client.cancel()
    session.until(lambda: session.client.state is WorkerState.READY)
    assert [name for name, _ in session.events if name in ("finished", "cancelled")] == ["cancelled"]


def test_closing_kills_a_worker_that_does_not_listen_and_leaves_no_zombie(
    openSession: OpenSession, faultyWorker: FaultyWorker
) -> None:
    session = openSession(faultyWorker("deaf"))
    session.segment()
    session.until(lambda: session.client.state is WorkerState.BUSY)
    pid, began = session.pid, time.monotonic()
    session.client.close()
    assert time.monotonic() - began < 3
    assert not Path(f"/proc/{pid}").exists()


def test_an_idle_worker_leaves_and_the_next_click_starts_another(openSession: OpenSession, engine: list[str]) -> None:
    session = openSession([*engine, "0.3"])
    session.segment()
    session.first("finished")
    pid = session.pid
    session.until(lambda: session.client.state is WorkerState.STOPPED, seconds=5)
    assert not isAlive(pid)
    assert not any(name == "failed" for name, _ in session.events)
    session.events.clear()
    session.segment()
    session.first("finished")
    assert session.pid != pid


def test_a_run_longer_than_the_idle_time_is_not_ended(openSession: OpenSession, engine: list[str]) -> None:
    session = openSession([*engine, "0.3"])
    session.segment(steps=50)
    session.first("finished")


OWNER = """
import json, subprocess, sys, time
worker = subprocess.Popen(json.loads(sys.argv[1]), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print(worker.pid, flush=True)
worker.stdin.write(sys.argv[2].encode() + b"\\n")
worker.stdin.flush()
[worker.stdout.readline() for _ in range(3)]
print("runs", flush=True)
time.sleep(60)
"""


def test_the_worker_leaves_when_its_owner_is_killed_during_a_run(tmp_path: Path, engine: list[str]) -> None:
    (tmp_path / "v").write_bytes(b"12")
    volume = {"path": str(tmp_path / "v"), "shape": [1, 1, 2], "dtype": "uint8", "ijk_to_lps": [0.0] * 16}
    request = {"type": "segment", "id": "1", "steps": 5000, "output_folder": str(tmp_path), "volume": volume}
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, json.dumps(engine), json.dumps(request)], stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    assert owner.stdout.readline() == b"runs\n"
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    end = time.monotonic() + 3
    while isAlive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not isAlive(pid)
