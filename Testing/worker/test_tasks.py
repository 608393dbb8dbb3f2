"""Tasks without a scan: they travel like requests; a refusal before a request leaves no trace."""

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


@pytest.mark.parametrize(
    "message",
    [
        SelfTest(id="1", output_folder="out", device="cpu"),
        SelfTestReport(id="1", report={"gflops": 1.5, "missing": []}),
        ImportModel(id="2", output_folder="out", path="a b/mine.zip", replace=True),
        Imported(id="2", name="mine"),
    ],
)
def test_the_messages_survive_the_wire(message: Any) -> None:
    assert decode(encode(message)) == message


def test_the_real_worker_tests_itself_and_refuses_what_is_no_model(
    openSession: Callable[[Sequence[str]], Any],
) -> None:
    session = openSession([sys.executable, *WORKER_ARGUMENTS])
    session.client.ask(SelfTest, device="cpu")
    report = session.first("finished", seconds=60).report
    assert report["gflops"] > 0
    assert report["missing"] == []
    session.client.ask(ImportModel, path="no/such/model.zip")
    assert session.first("failed", seconds=60).code is ErrorCode.INPUT_MISSING
    assert session.files() == []


def test_a_task_waits_for_no_other(session: Any) -> None:
    session.segment(steps=500)
    session.first("progress")
    with pytest.raises(DiffusionSegmentError, match="in progress"):
        session.client.ask(SelfTest)


def test_what_is_not_prepared_starts_nothing_and_writes_nothing(session: Any) -> None:
    def refuse() -> None:
        raise DiffusionSegmentError(ErrorCode.NO_TORCH, "Not installed: torch.", hint="Agree.")

    session.client.prepare = refuse
    with pytest.raises(DiffusionSegmentError, match="Not installed"):
        session.segment()
    assert session.client.state is WorkerState.STOPPED
    assert not session.client.running
    assert session.transports == []
    assert session.files() == []


def test_a_request_is_prepared_each_time_and_a_task_never(session: Any) -> None:
    calls: list[str] = []
    session.client.prepare = lambda: calls.append("asked")
    for _ in range(2):
        session.events.clear()
        session.segment()
        session.first("finished")
    session.client.ask(SelfTest)
    assert calls == ["asked", "asked"]
