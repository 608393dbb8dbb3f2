"""Nodes in this process, with short pauses and a stand-in for the networks, and a real archive."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from DiffusionSegmentBackend.dicom_node.ledger import FINAL, Job, JobState
from DiffusionSegmentBackend.dicom_node.node import DicomNode
from DiffusionSegmentBackend.dicom_node.settings import Limits, Listener, NodeSettings, Patience, Peer, address
from DiffusionSegmentBackend.schema.run_options import RunOptions
from fixtures.orthanc import AET, Orthanc, free_port, running_orthanc
from fixtures.tiny_model import write_tiny_model

from .sending import SENDER
from .stand_in_worker import RUNS

_WAIT_S = 240.0
PATIENCE = Patience(quiet_s=0.3, silence_s=1.0, limit_s=3.0)
LIMITS = Limits(min_slices=5, min_free_bytes=1, retry_s=(0.2,))


@dataclass
class RunningNode:
    """A node, its port, and the folder that controls its stand-in worker."""

    node: DicomNode
    port: int
    control: Path

    def jobs(self, *states: JobState) -> list[Job]:
        return self.node._ledger.jobs(*(states or tuple(JobState)))

    def until(self, done: Callable[[], bool], seconds: float = _WAIT_S) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, [(job.state, job.code) for job in self.jobs()]
            time.sleep(0.02)

    def until_idle(self, jobs: int = 1) -> None:
        """Wait until so many jobs exist and all have ended."""
        self.until(lambda: len(self.jobs()) >= jobs and all(job.state in FINAL for job in self.jobs()))

    @property
    def runs(self) -> int:
        """Runs of the stand-in worker."""
        path = self.control / RUNS
        return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models"))


def stand_in_settings(folder: Path, model: Path, **changes: Any) -> NodeSettings:
    """Settings of a node in `folder` on a free port, for the peers of the tests."""
    control = folder / "control"
    control.mkdir(parents=True, exist_ok=True)
    worker = (sys.executable, "-u", str(Path(__file__).with_name("stand_in_worker.py")), str(control))
    settings = NodeSettings(
        folder=folder / "node",
        worker=worker,
        listener=Listener(port=free_port(), host="127.0.0.1", peers=(Peer(aet=SENDER), Peer(aet=AET))),
        forward=address("NOBODY@127.0.0.1:1"),
        patience=PATIENCE,
        limits=LIMITS,
        options=RunOptions(model=str(model), device="cpu"),
        poll_s=0.03,
        search_s=0.2,
    )
    return replace(settings, **changes)


@contextmanager
def running_node(folder: Path, model: Path, **changes: Any) -> Iterator[RunningNode]:
    """A node with these settings, stopped at the end."""
    settings = stand_in_settings(folder, model, **changes)
    node = DicomNode(settings)
    try:
        port, _ = node.start()
        yield RunningNode(node, port or 0, folder / "control")
    finally:
        node.stop()


@pytest.fixture
def start_node(tmp_path: Path, tiny_model: Path) -> Iterator[Callable[..., RunningNode]]:
    """Start nodes in the folder of the test; they are stopped at its end."""
    contexts = []

    def start(**changes: Any) -> RunningNode:
        contexts.append(running_node(tmp_path, tiny_model, **changes))
        return contexts[-1].__enter__()

    yield start
    for context in contexts:
        context.__exit__(None, None, None)


@dataclass
class Site:
    """An archive and a node that send to each other."""

    archive: Orthanc
    node: RunningNode

    def studies_with(self, modality: str) -> list[str]:
        """The archive's study of each series of a modality, sorted."""
        return sorted(str(series["ParentStudy"]) for series in self.archive.series(modality))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Site]:
    folder, port = tmp_path_factory.mktemp("site"), free_port()
    listener = Listener(port=port, host="127.0.0.1", peers=(Peer(aet=SENDER), Peer(aet=AET, host="localhost")))
    with running_orthanc(folder / "archive", node_port=port) as archive:
        forward = address(archive.address)
        with running_node(folder, tiny_model, listener=listener, forward=forward) as node:
            yield Site(archive, node)
