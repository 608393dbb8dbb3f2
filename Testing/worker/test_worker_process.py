"""The worker process and its client: every state, cancel, crash, broken messages, no files left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.buffers import open_buffer
from DiffusionSegmentLib.worker.session_folder import createSessionFolder, removeStaleFolders
from DiffusionSegmentLib.worker.worker_state import WorkerState

if TYPE_CHECKING:
    from .conftest import Session

COMMAND = [sys.executable, "-u", str(Path(__file__).with_name("engine_process.py"))]


def isAlive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_a_request_starts_the_worker_and_gets_the_result(session: Session) -> None:
    session.segment(seed=7)
    result = session.first("finished")
    np.testing.assert_array_equal(open_buffer(result.labels), session.array > 0)
    np.testing.assert_allclose(np.reshape(result.labels.ijk_to_lps, (4, 4)), session.geometry)
    assert result.report.provenance.plan.seed == 7
    assert session.states == [WorkerState.STARTING, WorkerState.BUSY, WorkerState.READY]
    assert any(name == "progress" for name, _ in session.events)


def test_the_second_request_uses_the_same_worker(session: Session) -> None:
    session.segment()
    session.first("finished")
    assert session.client.hello is not None
    pid = session.client.hello.pid
    session.events.clear()
    session.segment()
    session.first("finished")
    assert session.client.hello.pid == pid
    assert session.states == [WorkerState.BUSY, WorkerState.READY]


def test_a_cancel_takes_effect_within_one_step_and_leaves_no_file(session: Session) -> None:
    session.segment(steps=500)
    session.first("progress")
    began = time.monotonic()
    session.client.cancel()
    assert session.client.state is WorkerState.CANCELLING
    session.first("cancelled")
    assert time.monotonic() - began < 0.5
    assert session.client.state is WorkerState.READY
    assert session.client._folder is not None
    assert list(session.client._folder.iterdir()) == []


def test_a_request_during_a_run_is_refused(session: Session) -> None:
    session.segment(steps=100)
    with pytest.raises(DiffusionSegmentError) as caught:
        session.segment()
    assert caught.value.code is ErrorCode.BUSY


def test_a_killed_worker_is_reported_and_the_next_request_succeeds(session: Session) -> None:
    session.segment(steps=500)
    session.first("progress")
    assert session.client.hello is not None
    os.kill(session.client.hello.pid, signal.SIGKILL)
    error = session.first("failed")
    assert error.code is ErrorCode.WORKER_DIED
    assert "Segment once more" in error.hint
    session.until(lambda: session.client.state is WorkerState.READY)
    session.segment()
    session.first("finished")


def test_a_worker_that_crashes_every_time_is_not_restarted_endlessly(session: Session) -> None:
    for _ in range(2):
        session.events.clear()
        session.segment(organs=("crash",))
        assert session.first("failed").code is ErrorCode.WORKER_DIED
        session.until(lambda: session.client.state is WorkerState.READY)
    assert len(session.transports) == 3


def test_a_worker_that_cannot_start_fails_once(openSession: Callable[[list[str]], Session]) -> None:
    session = openSession([sys.executable, "-c", "raise SystemExit(5)"])
    session.segment()
    error = session.first("failed")
    assert error.code is ErrorCode.WORKER_DIED
    assert "could not be started" in error.message
    assert session.client.state is WorkerState.FAILED


@pytest.mark.parametrize(
    ("fault", "code"),
    [("refuse", ErrorCode.MODALITY), ("bug", ErrorCode.INTERNAL), ("memory", ErrorCode.OUT_OF_MEMORY)],
)
def test_failures_have_their_code_and_the_worker_continues(session: Session, fault: str, code: ErrorCode) -> None:
    session.segment(organs=(fault,))
    error = session.first("failed")
    assert error.code is code
    assert error.hint
    session.segment()
    session.first("finished")


def test_stray_prints_and_tracebacks_go_to_the_log(session: Session) -> None:
    session.segment(organs=("bug",))
    session.first("failed")
    session.until(lambda: "ZeroDivisionError" in session.client.log())
    assert "stray print" in session.client.log()


def test_close_terminates_the_process_and_removes_the_files(session: Session) -> None:
    session.segment(steps=500)
    session.first("progress")
    assert session.client.hello is not None
    pid, folder = session.client.hello.pid, session.client._folder
    began = time.monotonic()
    session.client.close()
    assert time.monotonic() - began < 2.5
    assert not isAlive(pid)
    assert folder is not None
    assert not folder.exists()
    assert session.client.state is WorkerState.STOPPED


def test_the_sessions_files_are_private() -> None:
    folder = createSessionFolder()
    assert folder.stat().st_mode & 0o077 == 0
    folder.rmdir()


def test_folders_of_ended_sessions_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ended = subprocess.Popen(["true"])
    ended.wait()
    for pid in (ended.pid, os.getpid()):
        (tmp_path / f"diffusionsegment-{pid}-x").mkdir()
    removeStaleFolders()
    assert [p.name for p in tmp_path.iterdir()] == [f"diffusionsegment-{os.getpid()}-x"]


def exchange(lines: list[bytes]) -> list[dict[str, Any]]:
    """Send raw lines to a worker, close its input, and return all its messages."""
    done = subprocess.run(COMMAND, input=b"\n".join(lines) + b"\n", capture_output=True, timeout=30, check=False)
    assert done.returncode == 0
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_each_invalid_line_gets_an_error_and_the_worker_continues() -> None:
    lines = [
        b"rubbish",
        b"[1]",
        b'{"type":"dance"}',
        b'{"type":"segment","id":"1"}',
        b"\xff\xfe",
        b'{"type":"ping","id":"p"}',
    ]
    messages = exchange(lines)
    assert [a["type"] for a in messages] == ["hello", *["error"] * 5, "pong"]
    assert {a["code"] for a in messages if a["type"] == "error"} == {"PROTOCOL"}


def test_a_buffer_of_the_wrong_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v.raw").write_bytes(b"1234")
    volume = {"path": str(tmp_path / "v.raw"), "shape": [3, 4, 5], "dtype": "int16", "ijk_to_lps": [1.0] * 16}
    request = {"type": "segment", "id": "1", "volume": volume, "output_folder": str(tmp_path)}
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(request).encode() + b"\n")
    process.stdin.flush()
    messages = [json.loads(process.stdout.readline()) for _ in range(2)]
    process.stdin.close()
    assert process.wait(5) == 0
    assert messages[1]["type"] == "error"
    assert messages[1]["code"] == "PROTOCOL"
    assert "wrong size" in messages[1]["message"]


def test_ping_is_answered_during_a_run(session: Session) -> None:
    session.segment(steps=500)
    session.first("progress")
    received: list[bytes] = []
    transport = session.transports[-1]
    receive = transport.onOutput
    transport.onOutput = lambda chunk: (received.append(chunk), receive(chunk))[1]
    transport.write(b'{"type":"ping","id":"alive"}\n')
    session.until(lambda: b'"alive"' in b"".join(received), seconds=1)


def test_hello_is_sent_before_torch_is_loaded() -> None:
    entry = Path(__file__).resolve().parents[2] / "DiffusionSegment" / "DiffusionSegmentBackend" / "__main__.py"
    process = subprocess.Popen([sys.executable, str(entry), "worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    began = time.monotonic()
    hello = json.loads(process.stdout.readline())
    assert time.monotonic() - began < 3
    assert hello["pid"] == process.pid
    assert hello["models"] == ["abdomen-ct", "abdomen-mr", "headneck-ct", "hippocampus-mr"]
    assert "libtorch_cpu" not in Path(f"/proc/{process.pid}/maps").read_text()
    process.stdin.close()
    assert process.wait(5) == 0
