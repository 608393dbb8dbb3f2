"""Tasks without a scan are sent like requests, and a request that is refused before it is sent has no effect."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.messages import (
    Imported,
    ImportModel,
    SelfTest,
    SelfTestReport,
    decode,
    encode,
)
from DiffusionSegmentLib.worker.transport_protocol import WORKER_ARGUMENTS
from DiffusionSegmentLib.worker.worker_state import WorkerState
from fixtures.self_test_findings import FINDINGS


@pytest.mark.parametrize(
    "message",
    [
        SelfTest(id="1", output_folder="out", device="cpu"),
        SelfTestReport(id="1", report=FINDINGS),
        ImportModel(id="2", output_folder="out", path="a b/mine.zip", replace=True),
        Imported(id="2", name="mine"),
    ],
)
def test_messages_are_equal_after_encoding_and_decoding(message: Any) -> None:
    assert decode(encode(message)) == message


def test_the_real_worker_runs_the_self_test_and_refuses_a_missing_model(
    openSession: Callable[[Sequence[str]], Any],
) -> None:
    session = openSession([sys.executable, *WORKER_ARGUMENTS])
    session.client.ask(SelfTest, device="cpu")
    report = session.first("finished", seconds=60).report
    assert report.gflops > 0
    assert report.missing == ()
    session.client.ask(ImportModel, path="no/such/model.zip")
    assert session.first("failed", seconds=60).code is ErrorCode.INPUT_MISSING
    assert session.files() == []


def test_a_task_during_a_run_is_refused(session: Any) -> None:
    session.segment(steps=500)
    session.first("progress")
    with pytest.raises(DiffusionSegmentError, match="in progress"):
        session.client.ask(SelfTest)


def test_a_failed_preparation_starts_no_worker_and_writes_no_file(session: Any) -> None:
    def refuse() -> None:
        raise DiffusionSegmentError(ErrorCode.NO_TORCH, "Not installed: torch.", hint="Agree.")

    session.client.prepare = refuse
    with pytest.raises(DiffusionSegmentError, match="Not installed"):
        session.segment()
    assert session.client.state is WorkerState.STOPPED
    assert not session.client.running
    assert session.transports == []
    assert session.files() == []


def test_each_request_is_prepared_and_tasks_are_not(session: Any) -> None:
    calls: list[str] = []
    session.client.prepare = lambda: calls.append("prepared")
    for _ in range(2):
        session.events.clear()
        session.segment()
        session.first("finished")
    session.client.ask(SelfTest)
    assert calls == ["prepared", "prepared"]
