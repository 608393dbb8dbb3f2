"""The transition table of the worker's states, and that the client follows it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.messages import (
    PROTOCOL_VERSION,
    CancelledNotice,
    Hello,
    Message,
    SelfTest,
    SelfTestReport,
    encode,
)
from DiffusionSegmentLib.worker import client as client_module
from DiffusionSegmentLib.worker.client import WorkerClient
from DiffusionSegmentLib.worker.transport_protocol import ignoreFinished, ignoreOutput
from DiffusionSegmentLib.worker.worker_state import TRANSITIONS, WorkerEvent, WorkerState, nextState
from fixtures.self_test_findings import FINDINGS

STATES, EVENTS = WorkerState, WorkerEvent
POSSIBLE = [(state, event) for state in TRANSITIONS for event, after in TRANSITIONS[state].items() if after is not None]
IMPOSSIBLE = [(state, event) for state in TRANSITIONS for event, after in TRANSITIONS[state].items() if after is None]


class FakeTransport:
    """A worker process that does nothing by itself."""

    def __init__(self) -> None:
        self.onOutput: Callable[[bytes], None] = ignoreOutput
        self.onFinished: Callable[[int], None] = ignoreFinished
        self.written: list[bytes] = []

    def start(self) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def closeInput(self) -> None:
        pass

    def waitForFinished(self, seconds: float) -> bool:
        return True

    def kill(self) -> None:
        pass

    def log(self) -> str:
        return ""


class Driver:
    """Brings a client with a fake worker into any state and triggers any event."""

    def __init__(self) -> None:
        self.transports: list[FakeTransport] = []
        self.client = WorkerClient(self._create)
        self.request = ""

    def _create(self) -> FakeTransport:
        self.transports.append(FakeTransport())
        return self.transports[-1]

    def receive(self, message: Message) -> None:
        self.transports[-1].onOutput(encode(message))

    def hello(self) -> None:
        self.receive(Hello(pid=os.getpid(), protocol=PROTOCOL_VERSION, version="0", device="auto", torch=""))

    def submit(self) -> None:
        self.request = self.client.ask(SelfTest)

    def report(self) -> None:
        self.receive(SelfTestReport(id=self.request, report=FINDINGS))

    def goTo(self, state: WorkerState) -> None:
        """Reach a state from the start."""
        steps: dict[WorkerState, tuple[Callable[[], object], ...]] = {
            STATES.STOPPED: (),
            STATES.STARTING: (self.submit,),
            STATES.READY: (self.submit, self.hello, self.report),
            STATES.BUSY: (self.submit, self.hello),
            STATES.CANCELLING: (self.submit, self.hello, self.client.cancel),
            STATES.FAILED: (self.submit, lambda: self.transports[-1].onFinished(1)),
        }
        for step in steps[state]:
            step()
        assert self.client.state is state

    def trigger(self, event: WorkerEvent) -> None:
        """Trigger an event; one that needs an idle client first drops the pending request of a starting worker."""
        if event in (EVENTS.HELLO, EVENTS.REQUEST) and self.client.state is STATES.STARTING:
            self.client.cancel()
        actions: dict[WorkerEvent, Callable[[], object]] = {
            EVENTS.REQUEST: self.submit,
            EVENTS.CANCEL: self.client.cancel,
            EVENTS.HELLO: self.hello,
            EVENTS.HELLO_PENDING: self.hello,
            EVENTS.ANSWER: lambda: self.receive(CancelledNotice(id=self.request)),
            EVENTS.IDLE_EXIT: lambda: self.transports[-1].onFinished(0),
            EVENTS.RESTART: lambda: self.transports[-1].onFinished(1),
            EVENTS.LOSS: lambda: self.transports[-1].onOutput(b"no message\n"),
            EVENTS.CLOSE: self.client.close,
        }
        actions[event]()


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    monkeypatch.setattr(client_module, "createSessionFolder", lambda: tmp_path)
    # The process ID in the hello message is not that of a worker.
    monkeypatch.setattr(WorkerClient, "_killWorker", lambda self, transport: None)
    return Driver()


def test_the_table_has_an_entry_for_every_state_and_event() -> None:
    assert set(TRANSITIONS) == set(WorkerState)
    assert all(set(row) == set(WorkerEvent) for row in TRANSITIONS.values())


def test_every_state_can_be_reached_and_left() -> None:
    reached = {STATES.STOPPED}
    for _ in STATES:
        reached |= {after for state in reached for after in TRANSITIONS[state].values() if after is not None}
    assert reached == set(STATES)
    assert all(row[EVENTS.CLOSE] is STATES.STOPPED for row in TRANSITIONS.values())


@pytest.mark.parametrize(("state", "event"), POSSIBLE, ids=lambda item: item.name)
def test_the_client_follows_the_table(driver: Driver, state: WorkerState, event: WorkerEvent) -> None:
    driver.goTo(state)
    driver.trigger(event)
    assert driver.client.state is TRANSITIONS[state][event]


@pytest.mark.parametrize(("state", "event"), IMPOSSIBLE, ids=lambda item: item.name)
def test_an_impossible_event_is_an_error(state: WorkerState, event: WorkerEvent) -> None:
    with pytest.raises(DiffusionSegmentError) as error:
        nextState(state, event)
    assert error.value.code is ErrorCode.PROTOCOL


@pytest.mark.parametrize("state", [STATES.READY, STATES.BUSY, STATES.CANCELLING], ids=lambda state: state.name)
def test_a_worker_that_sends_hello_twice_is_terminated(driver: Driver, state: WorkerState) -> None:
    errors: list[DiffusionSegmentError] = []
    driver.client.failed.connect(lambda _, error: errors.append(error))
    driver.goTo(state)
    driver.hello()
    assert driver.client.state is STATES.FAILED
    assert [error.code for error in errors] == [ErrorCode.PROTOCOL]


@pytest.mark.parametrize("state", [STATES.BUSY, STATES.CANCELLING], ids=lambda state: state.name)
def test_a_second_request_is_refused(driver: Driver, state: WorkerState) -> None:
    driver.goTo(state)
    with pytest.raises(DiffusionSegmentError) as error:
        driver.submit()
    assert error.value.code is ErrorCode.BUSY


@pytest.mark.parametrize("state", [STATES.STOPPED, STATES.READY, STATES.FAILED], ids=lambda state: state.name)
def test_without_a_request_cancel_does_nothing(driver: Driver, state: WorkerState) -> None:
    driver.goTo(state)
    driver.client.cancel()
    assert driver.client.state is state
