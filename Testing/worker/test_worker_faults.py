"""Every fault must end in an error message and a usable client, never in endless waiting."""

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


@pytest.mark.parametrize("fault", ["nan", "numpy", "exit"])
def test_a_fault_in_a_run_is_reported_and_the_worker_continues(session: Session, fault: str) -> None:
    session.segment(organs=(fault,))
    assert session.first("failed", seconds=5).code is ErrorCode.INTERNAL
    assert session.files() == []
    session.segment()
    session.first("finished", seconds=5)


def test_running_out_of_memory_while_the_result_is_written_leaves_no_file(session: Session) -> None:
    session.segment(organs=("late memory",))
    assert session.first("failed").code is ErrorCode.OUT_OF_MEMORY
    assert session.files() == []


def test_a_line_that_is_too_long_is_one_error_and_the_next_message_is_read(engine: list[str]) -> None:
    lines = b"x" * (2 * MAX_LINE_BYTES + 5) + b'\n{"type":"ping","id":"p"}\n'
    done = subprocess.run(engine, input=lines, capture_output=True, timeout=30, check=True)
    assert [json.loads(line)["type"] for line in done.stdout.splitlines()] == ["hello", "error", "pong"]


def test_after_an_invalid_line_of_the_worker_the_client_is_usable(
    openSession: OpenSession, faultyWorker: FaultyWorker, engine: list[str]
) -> None:
    session = openSession(faultyWorker("rubbish"))
    session.segment()
    assert session.first("failed", seconds=5).code is ErrorCode.PROTOCOL
    session.succeedsWith(engine)


def test_an_unknown_error_code_is_reported_with_its_message(
    openSession: OpenSession, faultyWorker: FaultyWorker
) -> None:
    session = openSession(faultyWorker("new code"))
    session.segment()
    error = session.first("failed", seconds=5)
    assert (error.message, error.hint) == ("A later error.", "Wait.")
    assert session.client.state is WorkerState.READY


def test_a_worker_of_another_version_is_refused_and_terminated(
    openSession: OpenSession, faultyWorker: FaultyWorker, engine: list[str]
) -> None:
    session = openSession(faultyWorker("other version"))
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


def test_a_result_that_was_sent_before_a_cancel_is_dropped(
    openSession: OpenSession, faultyWorker: FaultyWorker
) -> None:
    session = openSession(faultyWorker("crossing"))
    session.segment()
    session.until(lambda: session.client.state is WorkerState.BUSY)
    session.client.cancel()
    session.until(lambda: session.client.state is WorkerState.READY)
    assert [name for name, _ in session.events if name in ("finished", "cancelled")] == ["cancelled"]


def test_closing_kills_an_unresponsive_worker_and_leaves_no_zombie(
    openSession: OpenSession, faultyWorker: FaultyWorker
) -> None:
    session = openSession(faultyWorker("unresponsive"))
    session.segment()
    session.until(lambda: session.client.state is WorkerState.BUSY)
    pid, began = session.pid, time.monotonic()
    session.client.close()
    assert time.monotonic() - began < 3
    assert not Path(f"/proc/{pid}").exists()


def test_an_idle_worker_exits_and_the_next_request_starts_another(openSession: OpenSession, engine: list[str]) -> None:
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


def test_a_run_longer_than_the_idle_time_is_not_interrupted(openSession: OpenSession, engine: list[str]) -> None:
    session = openSession([*engine, "0.3"])
    session.segment(steps=50)
    session.first("finished")


PARENT = """
import json, subprocess, sys, time
worker = subprocess.Popen(json.loads(sys.argv[1]), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print(worker.pid, flush=True)
worker.stdin.write(sys.argv[2].encode() + b"\\n")
worker.stdin.flush()
[worker.stdout.readline() for _ in range(3)]
print("runs", flush=True)
time.sleep(60)
"""


def test_the_worker_exits_when_its_parent_is_killed_during_a_run(tmp_path: Path, engine: list[str]) -> None:
    (tmp_path / "v").write_bytes(b"12")
    volume = {"path": str(tmp_path / "v"), "shape": [1, 1, 2], "dtype": "uint8", "ijk_to_lps": [0.0] * 16}
    request = {"type": "segment", "id": "1", "steps": 5000, "output_folder": str(tmp_path), "volume": volume}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, json.dumps(engine), json.dumps(request)], stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert parent.stdout.readline() == b"runs\n"
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    end = time.monotonic() + 3
    while isAlive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not isAlive(pid)
