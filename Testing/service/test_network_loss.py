"""What happens when the network or the server goes away: said, retried, and nothing left behind."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from DiffusionSegmentBackend.errors import ErrorCode
from DiffusionSegmentBackend.protocol.connection import ServerConnection
from fixtures.running_service import RunningService


class Cable:
    """A relay between client and server that can be cut: connections end, and new ones are refused."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._sockets: list[socket.socket] = []
        self.connected = True
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.connected = False
        for end in self._sockets:
            end.close() if end.fileno() < 0 else _shut(end)
        self._sockets.clear()

    def mend(self) -> None:
        self.connected = True

    def close(self) -> None:
        self.cut()
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            if not self.connected:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_copy, args=(source, sink), daemon=True).start()


def _shut(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    _shut(sink)


@pytest.fixture
def cable(service: RunningService) -> Iterator[Cable]:
    made = Cable(service.port)
    yield made
    made.close()


def through(cable: Cable, service: RunningService) -> ServerConnection:
    return ServerConnection(address=f"http://127.0.0.1:{cable.port}", token=service.tokens["alice"])


def test_a_loss_in_the_middle_of_a_run_is_said_and_the_run_goes_on(
    service: RunningService, cable: Cable, openClient: Callable
) -> None:
    client = openClient(through(cable, service))
    client.segment(steps=150)
    client.until(lambda: client.stages().count("refine") > 10)
    cable.cut()
    client.until(lambda: "reconnect" in client.stages())
    time.sleep(0.5)
    cable.mend()
    assert np.array_equal(client.map("labels"), client.array > 0)
    steps = [value.done for kind, value in client.events if kind == "progress" and value.stage == "refine"]
    assert steps == list(range(150)), "no step is lost or told twice"


def test_a_server_that_was_killed_starts_clean_and_the_run_is_repeated(
    service: RunningService, openClient: Callable
) -> None:
    client = openClient(service.connection())
    client.segment(steps=100)
    client.until(lambda: client.stages().count("refine") > 5)
    left = list(service.work_dir.glob("session-*/*.raw"))
    assert left
    service.kill()
    service.start()
    assert not any(path.exists() for path in left)
    assert np.array_equal(client.map("labels"), client.array > 0)
    assert client.stages().count("upload") == 2


def test_an_orderly_end_of_the_server_leaves_nothing(service: RunningService, openClient: Callable) -> None:
    client = openClient(service.connection())
    client.segment(steps=2000)
    client.until(lambda: "refine" in client.stages())
    started = time.monotonic()
    service.stop()
    assert time.monotonic() - started < 15
    assert service.process.returncode == 0
    assert [path.name for path in service.work_dir.iterdir()] == ["lock"]
    client.client.cancel()
    client.first("cancelled", seconds=10)


def test_cancel_answers_while_the_server_is_away(service: RunningService, cable: Cable, openClient: Callable) -> None:
    client = openClient(through(cable, service))
    client.segment(steps=2000)
    client.until(lambda: "refine" in client.stages())
    cable.cut()
    client.until(lambda: "reconnect" in client.stages())
    client.client.cancel()
    client.first("cancelled", seconds=5)


def test_a_run_that_nobody_waits_for_is_cancelled_and_an_idle_session_dropped(
    startService: Callable[..., RunningService], openClient: Callable
) -> None:
    service = startService(limits={"detached_seconds": 1.0, "idle_seconds": 2.0, "heartbeat_seconds": 0.5})
    client = openClient(service.connection())
    client.segment(steps=2000)
    client.until(lambda: "refine" in client.stages())
    client.transports[-1].kill()
    end = time.monotonic() + 15
    while list(service.work_dir.glob("session-*")) and time.monotonic() < end:
        time.sleep(0.2)
    assert [path.name for path in service.work_dir.iterdir()] == ["lock"]
    assert "ended: idle" in service.log()


def test_without_a_server_the_first_request_says_why(openClient: Callable) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    client = openClient(ServerConnection(address=f"http://127.0.0.1:{port}", token="token"))
    client.segment()
    client.until(lambda: client.has("failed"))
    assert next(value for kind, value in client.events if kind == "failed").code is ErrorCode.SERVER_UNREACHABLE
