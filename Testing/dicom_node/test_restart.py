"""A node that is killed in any state goes on where it was: nothing is lost, nothing is answered twice."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pydicom
import pytest
from DiffusionSegmentBackend.dicom_node.result import REPORT_FILE, SEGMENTATION_FILE
from fixtures.dicom_phantom import write_phantom_series
from fixtures.orthanc import AET, Orthanc, free_port, running_orthanc

from .sending import SENDER, associate, files_of, send
from .stand_in_worker import HOLD, RUNS

_WAIT_S = 240.0
CANARY = "Canarybird^Tweety"


class NodeProcess:
    """A node as a process of its own that can be killed and started again with the same folder."""

    def __init__(self, folder: Path, model: Path, archive: Orthanc) -> None:
        self.folder, self.control = folder / "node", folder / "control"
        self.control.mkdir(parents=True)
        self.log = folder / "node.log"
        self.port, self.health = free_port(), free_port()
        options = {
            "--port": self.port,
            "--host": "127.0.0.1",
            "--forward": archive.address,
            "--folder": self.folder,
            "--model": model,
            "--health-port": self.health,
            "--quiet-seconds": 0.3,
            "--silence-seconds": 1,
            "--limit-seconds": 2,
            "--min-slices": 5,
        }
        arguments = [str(part) for pair in options.items() for part in pair]
        script = str(Path(__file__).with_name("node_process.py"))
        peers = ["--peer", SENDER, "--peer", AET]
        self._command = [sys.executable, script, str(self.control), *arguments, *peers]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        self.until(lambda: "oldest_job" in self.ask("/metrics"))

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def terminate(self) -> int:
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(20)

    def ask(self, path: str) -> str:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.health}{path}", timeout=5) as answer:
            return str(answer.read().decode())
        return ""

    def count(self, state: str) -> int:
        found = re.search(rf'diffusion_segment_jobs{{state="{state}"}} ([\d.]+)', self.ask("/metrics"))
        return int(float(found[1])) if found else -1

    def until(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + _WAIT_S
        while not done():
            assert time.monotonic() < end, self.log.read_text(errors="replace")[-3000:]
            time.sleep(0.05)

    def until_state(self, state: str, jobs: int = 1) -> None:
        self.until(lambda: self.count(state) == jobs)

    @property
    def runs(self) -> int:
        path = self.control / RUNS
        return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("archive")) as running:
        yield running


@pytest.fixture
def node(tmp_path: Path, tiny_model: Path, archive: Orthanc) -> Iterator[NodeProcess]:
    for level in archive.ask("/studies"):
        archive.ask(f"/studies/{level}", method="DELETE")
    process = NodeProcess(tmp_path / "site", tiny_model, archive)
    process.start()
    yield process
    process.kill()


@pytest.fixture
def scan(tmp_path: Path, request: pytest.FixtureRequest) -> list[Path]:
    return files_of(write_phantom_series(tmp_path / "scan", request.node.name, PatientName=CANARY))


def check_one_answer(node: NodeProcess, archive: Orthanc) -> None:
    node.until_state("done")
    assert [len(series["Instances"]) for modality in ("SEG", "DOC") for series in archive.series(modality)] == [1, 1]
    assert node.count("failed") == node.count("rejected") == 0


def test_killed_while_a_series_arrives(node: NodeProcess, archive: Orthanc, scan: list[Path]) -> None:
    send(node.port, scan[:10])
    node.kill()
    node.start()
    send(node.port, scan[10:])
    check_one_answer(node, archive)
    assert node.runs == 1


def test_killed_while_a_series_waits_and_while_it_runs(node: NodeProcess, archive: Orthanc, scan: list[Path]) -> None:
    (node.control / HOLD).touch()
    send(node.port, scan)
    for runs in (1, 2):
        node.until(lambda expected=runs: node.runs == expected)
        assert node.count("running") == 1
        node.kill()
        node.start()
    (node.control / HOLD).unlink()
    check_one_answer(node, archive)
    assert node.runs == 3


def test_killed_before_a_result_is_sent(tmp_path: Path, tiny_model: Path, scan: list[Path]) -> None:
    folder = tmp_path / "archive"
    ports = Orthanc(free_port(), free_port())
    node = NodeProcess(tmp_path / "site", tiny_model, ports)
    node.start()
    try:
        # The archive is down.
        send(node.port, scan)
        node.until_state("produced")
        node.kill()
        node.start()
        with running_orthanc(folder, ports=ports) as archive:
            check_one_answer(node, archive)
        assert node.runs == 1
    finally:
        node.kill()


@pytest.mark.parametrize("state", ["sent", "produced"])
def test_killed_after_a_result_was_sent(node: NodeProcess, archive: Orthanc, scan: list[Path], state: str) -> None:
    send(node.port, scan)
    node.until_state("done")
    node.kill()
    # As if the process had ended between the answer of the archive and the record of it.
    database = sqlite3.connect(node.folder / "ledger.sqlite")
    (job,) = database.execute("SELECT id FROM jobs").fetchone()
    database.execute("UPDATE jobs SET state = ?", (state,))
    database.commit()
    database.close()
    objects = node.folder / "jobs" / job / "objects"
    objects.mkdir(parents=True)
    for modality, name in (("SEG", SEGMENTATION_FILE), ("DOC", REPORT_FILE)):
        (objects / name).write_bytes(archive.file(archive.series(modality)[0]["Instances"][0]))
    node.start()
    check_one_answer(node, archive)
    assert node.runs == 1


def test_a_worker_that_dies_is_replaced(node: NodeProcess, archive: Orthanc, scan: list[Path]) -> None:
    (node.control / "crash").touch()
    send(node.port, scan)
    check_one_answer(node, archive)
    assert node.runs == 2


def test_the_log_names_no_patient_and_a_stop_leaves_no_process(
    node: NodeProcess, archive: Orthanc, scan: list[Path]
) -> None:
    send(node.port, scan)
    node.until_state("done")
    metrics = node.ask("/metrics")
    assert (node.ask("/healthz"), node.ask("/readyz")) == ("ok\n", "ready\n")
    children = subprocess.run(["pgrep", "-P", str(node_pid(node))], capture_output=True, text=True, check=False)
    assert node.terminate() == 0
    for child in children.stdout.split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(child), signal.SIG_DFL)
    seen = node.log.read_text() + metrics
    assert "segmented in" in seen
    image = pydicom.dcmread(scan[0])
    secrets = [*CANARY.split("^"), image.PatientID + "\\", image.StudyInstanceUID, image.SeriesInstanceUID, SENDER]
    assert [secret for secret in secrets if secret in seen] == []


def test_an_open_association_does_not_keep_a_node_alive(node: NodeProcess) -> None:
    association = associate(node.port)
    assert association.is_established
    began = time.monotonic()
    assert node.terminate() == 0
    assert time.monotonic() - began < 15
    association.abort()


def node_pid(node: NodeProcess) -> int:
    assert node._process is not None
    return node._process.pid
