"""The same cohort on a real Ray cluster of this process: dead actors and workers are replaced, nothing is left."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from DiffusionSegmentBackend.cohort.executor import Executor
from DiffusionSegmentBackend.cohort.ray_executor import RayExecutor
from DiffusionSegmentBackend.cohort.resources import Resources
from DiffusionSegmentBackend.cohort.worker_process import WorkerSettings
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.process import ray_cluster
from fixtures.cohorts import read_rows, rows_by_name, run_stand_in, write_scans
from fixtures.ray_clusters import TOKEN, running_cluster


def ray_folders() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"dsray-{os.getpid()}-*"))


class ActorKiller(threading.Thread):
    """Kills the process of one actor, with its supervisor, as soon as both actors work."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.killed = 0
        self.modes: set[int] = set()

    def run(self) -> None:
        deadline = time.monotonic() + 120
        while not self.killed and time.monotonic() < deadline:
            time.sleep(0.05)
            children = psutil.Process().children(recursive=True)
            workers = [process for process in children if "stand_in_worker" in " ".join(cmdline(process))]
            if len(workers) == 2:
                self.modes = {stat.S_IMODE(folder.stat().st_mode) for folder in ray_folders()}
                actor = workers[0].parent()
                assert actor is not None
                os.kill(actor.pid, signal.SIGKILL)
                self.killed = actor.pid


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def start_ray(resources: Resources, settings: WorkerSettings, folder: Path) -> Executor:
    return RayExecutor(resources, settings, folder, address=None)


def test_two_actors_of_which_one_is_killed_give_every_scan_one_row(tmp_path: Path) -> None:
    # First by name, so that the actor is killed during one of these, which then has its second attempt.
    texts = {f"a{n}": f"slow {n}" for n in range(10)}
    source = write_scans(tmp_path / "scans", {**texts, "crashes": "crash", "hangs_once": "once hang"})
    killer = ActorKiller()
    killer.start()
    status = run_stand_in(source, tmp_path / "ray", start=start_ray, time_limit_min=0.1)
    killer.join()
    rows = rows_by_name(tmp_path / "ray")
    assert killer.killed
    assert not psutil.pid_exists(killer.killed)
    assert killer.modes == {0o700}
    assert status == 1
    assert len(read_rows(tmp_path / "ray" / "scans.csv")) == len(rows) == 12
    assert {name: row["code"] for name, row in rows.items() if row["code"]} == {"crashes": "WORKER_DIED"}
    # One for the scan that crashes and one for the one that hangs.
    assert sum(int(row["attempts"]) for row in rows.values()) >= 12 + 2
    assert ray_folders() == []
    assert not [p for p in psutil.Process().children(recursive=True) if "ray" in " ".join(cmdline(p))]


def test_an_address_without_a_cluster_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "_PROBE_SECONDS", 8.0)
    source = write_scans(tmp_path / "scans", {"a": ""})

    def start(resources: Resources, settings: WorkerSettings, folder: Path) -> Executor:
        return RayExecutor(resources, settings, folder, address="127.0.0.1:9")

    with pytest.raises(DiffusionSegmentError, match=r"no Ray cluster at 127\.0\.0\.1:9") as caught:
        run_stand_in(source, tmp_path / "out", start=start)
    assert caught.value.code is ErrorCode.OPTION


@pytest.fixture
def cluster() -> Iterator[str]:
    with running_cluster(1) as address:
        yield address


def test_an_existing_cluster_runs_as_many_workers_as_it_has_room_for(cluster: str, tmp_path: Path) -> None:
    source = write_scans(tmp_path / "scans", {"a": "", "b": "x"})
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from DiffusionSegmentBackend.cohort import ray_executor
from fixtures.cohorts import run_stand_in
ray_executor._READY_SECONDS = 20.0
start = lambda resources, settings, folder: ray_executor.RayExecutor(resources, settings, folder, address={cluster!r})
sys.exit(run_stand_in(Path({str(source)!r}), Path({str(tmp_path / "out")!r}), start=start))
"""
    environment = {**os.environ, **TOKEN, "PYTHONPATH": os.pathsep.join(sys.path)}
    # Ray reads the token once in a process.
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "The Ray cluster has room for 1 of 2 workers."
    assert {row["status"] for row in read_rows(tmp_path / "out" / "scans.csv")} == {"done"}
