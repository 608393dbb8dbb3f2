"""Several clients at once, each with a result of its own, and clients that come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from DiffusionSegmentBackend.phantom.phantom import make_phantom
from DiffusionSegmentBackend.protocol.messages import Correct, VolumeReference
from DiffusionSegmentBackend.service.worker_process import WORKER_COMMAND
from DiffusionSegmentLib.worker.client import WorkerClient
from fixtures.running_service import RunningService
from fixtures.subprocess_transport import SubprocessTransport
from service.cycles import LIMITS, WORKER, run_cycles

CLIENTS = 8
MAPS = ("labels", "uncertainty", "mutual_information", "regions")
# Small runs, whose results differ with the seed.
OPTIONS = {"samples": 1, "steps": 1, "device": "cpu", "precision": "float32", "force": True}
EIGHT = {"max_sessions": CLIENTS, "sessions_per_user": CLIENTS // 2}


@pytest.fixture(scope="module")
def phantom() -> tuple[np.ndarray, np.ndarray]:
    made = make_phantom(seed=3, spacing_mm=(6.0, 6.0, 6.0))
    # A part of it, because a whole one takes minutes on a busy machine.
    return np.ascontiguousarray(made.image[16:30]), made.index_to_lps


def maps_of(answer: object) -> dict[str, np.ndarray]:
    references = {name: getattr(answer, name) for name in MAPS}
    assert all(isinstance(reference, VolumeReference) for reference in references.values())
    return {name: np.fromfile(reference.path, reference.dtype) for name, reference in references.items()}


class LocalClient:
    """A client of the worker on this computer."""

    def __init__(self) -> None:
        self.transports: list[SubprocessTransport] = []
        self.answers: list[Any] = []
        self.client = WorkerClient(self._create)
        self.client.finished.connect(self.answers.append)
        self.client.failed.connect(lambda _, error: self.answers.append(error))

    def _create(self) -> SubprocessTransport:
        self.transports.append(SubprocessTransport())
        return self.transports[-1]

    def next(self) -> Any:
        """The next answer."""
        while not self.answers:
            self.transports[-1].poll(0.05)
        return self.answers.pop(0)


@pytest.fixture(scope="module")
def worker() -> Iterator[LocalClient]:
    opened = LocalClient()
    yield opened
    opened.client.close()


@pytest.fixture(scope="module")
def local(worker: LocalClient, phantom: tuple[np.ndarray, np.ndarray]) -> dict[int, dict[str, np.ndarray]]:
    """The maps of local runs by seed."""
    results = {}
    for seed in range(CLIENTS):
        worker.client.segment(*phantom, version=1, seed=seed, **OPTIONS)
        results[seed] = maps_of(worker.next())
    return results


@pytest.mark.slow
def test_eight_clients_at_once_get_their_own_results_bit_by_bit(
    phantom: tuple[np.ndarray, np.ndarray],
    local: dict[int, dict[str, np.ndarray]],
    startService: Callable[..., RunningService],
    openClient: Callable,
) -> None:
    service = startService(worker_command=WORKER_COMMAND, limits=EIGHT)
    clients = [openClient(service.connection("alice" if seed % 2 else "bob")) for seed in range(CLIENTS)]
    for seed, client in enumerate(clients):
        client.client.segment(*phantom, version=1, seed=seed, **OPTIONS)
    for client in clients:
        client.until(lambda: all(_polled(other) for other in clients), seconds=600)
    for seed, client in enumerate(clients):
        for name, values in maps_of(client.first("finished")).items():
            assert np.array_equal(values, local[seed][name]), (seed, name)
    assert len({values["uncertainty"].tobytes() for values in local.values()}) == CLIENTS


@pytest.mark.slow
def test_corrections_on_a_server_are_those_of_the_local_worker_bit_by_bit(
    phantom: tuple[np.ndarray, np.ndarray],
    worker: LocalClient,
    startService: Callable[..., RunningService],
    openClient: Callable,
) -> None:
    """Also on a session that the server has lost, which is computed again before the correction."""
    service = startService(worker_command=WORKER_COMMAND)
    remote = openClient(service.connection())
    worker.client.segment(*phantom, version=2, seed=0, **OPTIONS)
    labels = maps_of(worker.next())["labels"].reshape(phantom[0].shape)
    remote.client.segment(*phantom, version=2, seed=0, **OPTIONS)
    assert np.array_equal(remote.map("labels"), labels)
    scribbles = np.zeros_like(labels)
    k, j, i = np.argwhere(labels == 6).mean(axis=0).astype(int)
    scribbles[k, j - 2 : j + 3, i - 2 : i + 3] = 1  # background in the middle of the liver
    marked = {"version": 2, "maps": {"labels": labels, "scribbles": scribbles}, "seed": 0, **OPTIONS}
    worker.client.request(Correct, *phantom, **marked)
    expected = worker.next()
    for lost in (False, True):
        if lost:
            service.kill()
            service.start()
        remote.events.clear()
        remote.client.request(Correct, *phantom, **marked)
        answer = remote.first("finished", 300)
        for name, values in maps_of(expected).items():
            assert np.array_equal(maps_of(answer)[name], values), (lost, name)
        assert answer.labels.ijk_to_lps == expected.labels.ijk_to_lps
    assert maps_of(expected)["labels"].tobytes() != _same_box(labels, expected.labels, phantom[1]).tobytes()


def test_eight_clients_of_a_quick_engine_each_get_their_own_result(
    startService: Callable[..., RunningService], openClient: Callable
) -> None:
    service = startService(limits=EIGHT)
    clients = [openClient(service.connection("alice" if number % 2 else "bob")) for number in range(CLIENTS)]
    scans = [np.random.default_rng(number).integers(-99, 99, (4, 5, 6), np.int16) for number in range(CLIENTS)]
    for client, scan in zip(clients, scans, strict=True):
        client.client.segment(scan, client.geometry, version=1, steps=4)
    for client, scan in zip(clients, scans, strict=True):
        client.until(lambda: all(_polled(other) for other in clients), seconds=120)
        assert np.array_equal(client.map("labels"), scan > 0)


def test_clients_that_come_and_go_leave_nothing(startService: Callable[..., RunningService], tmp_path: Path) -> None:
    service = startService(worker_command=WORKER, limits=LIMITS)
    states = run_cycles(service, tmp_path, 50)
    assert all((state.folders, state.workers) == (0, 0) for state in states)
    assert states[-1].files <= states[3].files + 1
    assert states[-1].memory < states[3].memory + 15


def _same_box(values: np.ndarray, reference: VolumeReference, ijk_to_lps: np.ndarray) -> np.ndarray:
    """The part of a map that has the geometry of a reference."""
    first = np.linalg.solve(ijk_to_lps, np.reshape(reference.ijk_to_lps, (4, 4))[:, 3])[:3].round().astype(int)
    return values[tuple(slice(start, start + n) for start, n in zip(first[::-1], reference.shape, strict=True))]


def _polled(client: object) -> bool:
    """Whether a client has its answer; its events are delivered."""
    client.poll(0.005)  # type: ignore[attr-defined]
    return client.has("finished") or client.has("failed")  # type: ignore[attr-defined]
