"""Several clients at once, each with a result of its own, and clients that come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.phantom.phantom import make_phantom
from DiffusionSegmentBackend.protocol.messages import VolumeReference
from DiffusionSegmentBackend.service.server import WORKER_COMMAND
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


@pytest.fixture(scope="module")
def local(phantom: tuple[np.ndarray, np.ndarray]) -> Iterator[dict[int, dict[str, np.ndarray]]]:
    """The maps of local runs by seed."""
    transports: list[SubprocessTransport] = []

    def create() -> SubprocessTransport:
        transports.append(SubprocessTransport())
        return transports[-1]

    client, answers = WorkerClient(create), []
    client.finished.connect(answers.append)
    client.failed.connect(lambda _, error: answers.append(error))
    results = {}
    for seed in range(CLIENTS):
        client.segment(*phantom, version=1, seed=seed, **OPTIONS)
        while len(answers) <= seed:
            transports[-1].poll(0.05)
        results[seed] = maps_of(answers[seed])
    yield results
    client.close()


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


def _polled(client: object) -> bool:
    """Whether a client has its answer; its events are delivered."""
    client.poll(0.005)  # type: ignore[attr-defined]
    return client.has("finished") or client.has("failed")  # type: ignore[attr-defined]
