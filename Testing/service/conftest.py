"""Servers and clients that are ended with the test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from DiffusionSegmentBackend.protocol.connection import ServerConnection
from DiffusionSegmentLib.worker.client import WorkerClient
from fixtures.running_service import RemoteTransport, RunningService


class RemoteClient:
    """The client that the panel uses, with the process `remote` as its worker; its events are collected."""

    array = np.arange(-30, 30, dtype=np.int16).reshape(3, 4, 5)
    geometry = np.diag([1.0, 2.0, 3.0, 1.0])

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.transports: list[RemoteTransport] = []
        self.events: list[tuple[str, Any]] = []
        self.client = WorkerClient(self._create)
        self.client.progress.connect(lambda message: self.events.append(("progress", message)))
        self.client.previewed.connect(lambda message: self.events.append(("preview", message)))
        self.client.finished.connect(lambda answer: self.events.append(("finished", answer)))
        self.client.cancelled.connect(lambda requestId: self.events.append(("cancelled", requestId)))
        self.client.failed.connect(lambda requestId, error: self.events.append(("failed", error)))

    def _create(self) -> RemoteTransport:
        self.transports.append(RemoteTransport(self.connection))
        return self.transports[-1]

    def segment(self, **options: Any) -> None:
        self.client.segment(self.array, self.geometry, version=1, **options)

    def poll(self, seconds: float = 0.02) -> None:
        for transport in self.transports[-1:]:
            transport.poll(seconds)

    def until(self, done: Callable[[], bool], seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, f"timed out: {[kind for kind, _ in self.events]}"
            self.poll()

    def has(self, kind: str) -> bool:
        return any(name == kind for name, _ in self.events)

    def first(self, kind: str, seconds: float = 30.0) -> Any:
        """The first event of a kind; a failure ends the wait for another kind."""
        self.until(lambda: self.has(kind) or self.has("failed"), seconds)
        assert self.has(kind), self.events
        return next(value for name, value in self.events if name == kind)

    def stages(self) -> list[str]:
        return [value.stage for kind, value in self.events if kind == "progress"]

    def map(self, name: str) -> np.ndarray:
        """A map of the finished run."""
        reference = getattr(self.first("finished"), name)
        return np.fromfile(reference.path, reference.dtype).reshape(reference.shape)


StartService = Callable[..., RunningService]
OpenClient = Callable[[ServerConnection], RemoteClient]


@pytest.fixture
def startService(tmp_path: Path) -> Iterator[StartService]:
    """Start servers with any options."""
    started: list[RunningService] = []

    def start(**options: Any) -> RunningService:
        folder = tmp_path / f"service-{len(started)}"
        folder.mkdir()
        started.append(RunningService(folder, **options))
        return started[-1]

    yield start
    for service in started:
        service.close()


@pytest.fixture
def openClient() -> Iterator[OpenClient]:
    """Open clients of any server."""
    opened: list[RemoteClient] = []

    def open_(connection: ServerConnection) -> RemoteClient:
        opened.append(RemoteClient(connection))
        return opened[-1]

    yield open_
    for client in opened:
        client.client.close()


@pytest.fixture
def service(startService: StartService) -> RunningService:
    """A server with the small engine."""
    return startService()
