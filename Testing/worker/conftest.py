"""Clients of real worker processes, whose events are collected."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from DiffusionSegmentLib.worker.client import WorkerClient
from DiffusionSegmentLib.worker.subprocess_transport import SubprocessTransport
from DiffusionSegmentLib.worker.worker_state import WorkerState

_ENGINE = [sys.executable, "-u", str(Path(__file__).with_name("engine_process.py"))]
_FAULTY = [sys.executable, "-u", str(Path(__file__).with_name("faulty_worker.py"))]


class Session:
    """A client on a subprocess transport that is polled."""

    array = np.arange(-30, 30, dtype=np.int16).reshape(3, 4, 5)
    geometry = np.diag([1.0, 2.0, 3.0, 1.0])

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)
        self.transports: list[SubprocessTransport] = []
        self.events: list[tuple[str, Any]] = []
        self.client = WorkerClient(self._create)
        self.client.stateChanged.connect(lambda state: self.events.append(("state", state)))
        self.client.progress.connect(lambda message: self.events.append(("progress", message)))
        self.client.finished.connect(lambda result: self.events.append(("finished", result)))
        self.client.cancelled.connect(lambda requestId: self.events.append(("cancelled", requestId)))
        self.client.failed.connect(lambda requestId, error: self.events.append(("failed", error)))

    def _create(self) -> SubprocessTransport:
        self.transports.append(SubprocessTransport(self.command))
        return self.transports[-1]

    def segment(self, **options: Any) -> str:
        return self.client.segment(self.array, self.geometry, **options)

    def until(self, done: Callable[[], bool], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, f"timed out: {self.events}"
            for transport in self.transports[-1:]:
                transport.poll(0.02)

    def first(self, kind: str, seconds: float = 20.0) -> Any:
        self.until(lambda: any(name == kind for name, _ in self.events), seconds)
        return next(value for name, value in self.events if name == kind)

    def succeedsWith(self, command: Sequence[str]) -> None:
        """Check that the next request, with a worker without faults, gives a result."""
        self.command = list(command)
        self.events.clear()
        self.segment()
        self.first("finished", seconds=5)

    def files(self) -> list[str]:
        folder = self.client._folder
        return sorted(path.name for path in folder.iterdir()) if folder is not None else []

    @property
    def pid(self) -> int:
        assert self.client.hello is not None
        return self.client.hello.pid

    @property
    def states(self) -> list[WorkerState]:
        return [value for name, value in self.events if name == "state"]


@pytest.fixture(scope="session")
def engine() -> list[str]:
    """Command of the real worker around the test engine."""
    return _ENGINE


@pytest.fixture(scope="session")
def faultyWorker() -> Callable[[str], list[str]]:
    """Command of a worker with this fault."""
    return lambda fault: [*_FAULTY, fault]


@pytest.fixture
def openSession() -> Iterator[Callable[[Sequence[str]], Session]]:
    """Sessions with any command, closed at the end."""
    opened: list[Session] = []

    def open_(command: Sequence[str]) -> Session:
        opened.append(Session(command))
        return opened[-1]

    yield open_
    for session in opened:
        session.client.close()


@pytest.fixture
def session(openSession: Callable[[Sequence[str]], Session], engine: list[str]) -> Session:
    """A session with the real worker around the test engine."""
    return openSession(engine)
