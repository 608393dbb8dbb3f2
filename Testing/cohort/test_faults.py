"""Scans that fail, end their worker, or hang cost one row each; the others have their results."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from DiffusionSegmentBackend.cohort.executor import Executor, ProcessExecutor
from DiffusionSegmentBackend.cohort.journal import Journal, read_journal
from DiffusionSegmentBackend.cohort.lock import locked
from DiffusionSegmentBackend.cohort.resources import Resources
from DiffusionSegmentBackend.cohort.scan import Outcome
from DiffusionSegmentBackend.cohort.worker_process import WorkerSettings
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from fixtures.cohorts import read_rows, rows_by_name, run_stand_in, write_scans

MINUTE = 60.0
FAULTS = {
    "good": "",
    "better": "other",
    "crashes": "crash",
    "crashes_once": "once crash",
    "hangs": "hang",
    "hangs_once": "once hang",
    "memory_once": "once full memory",
    "bug": "bug",
    "chest": "chest",
}


def codes(output: Path) -> dict[str, tuple[str, str, str]]:
    return {name: (row["status"], row["code"], row["attempts"]) for name, row in rows_by_name(output).items()}


def test_every_fault_costs_one_row_and_what_another_attempt_may_change_is_tried_once_more(tmp_path: Path) -> None:
    source = write_scans(tmp_path / "scans", FAULTS)
    assert run_stand_in(source, tmp_path / "out", time_limit_min=3 / MINUTE) == 1
    assert codes(tmp_path / "out") == {
        "good": ("done", "", "1"),
        "better": ("done", "", "1"),
        "crashes": ("failed", "WORKER_DIED", "2"),
        "crashes_once": ("done", "", "2"),
        "hangs": ("failed", "TIME_LIMIT", "2"),
        "hangs_once": ("done", "", "2"),
        "memory_once": ("done", "", "2"),
        "bug": ("failed", "INTERNAL", "1"),
        "chest": ("not_fit", "BODY_PART_MISMATCH", "1"),
    }
    assert len(read_rows(tmp_path / "out" / "scans.csv")) == len(FAULTS)


def test_no_worker_outlives_the_cohort(tmp_path: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    run_stand_in(write_scans(tmp_path / "scans", {"a": "", "hangs": "hang"}), tmp_path / "out", time_limit_min=0.02)
    assert set(psutil.Process().children(recursive=True)) <= before


def test_a_full_disk_ends_the_cohort_in_one_line_and_it_goes_on_later(tmp_path: Path) -> None:
    source = write_scans(tmp_path / "scans", {"a": "", "b": "once full disk", "c": "x"})
    with pytest.raises(DiffusionSegmentError, match="disk is full") as caught:
        run_stand_in(source, tmp_path / "out", workers=1)
    assert caught.value.code is ErrorCode.DISK_FULL
    assert codes(tmp_path / "out")["c"] == ("waiting", "", "")
    assert run_stand_in(source, tmp_path / "out", workers=1, resume=True) == 0
    assert {row["status"] for row in read_rows(tmp_path / "out" / "scans.csv")} == {"done"}


def test_workers_killed_at_random_change_no_result(tmp_path: Path) -> None:
    source = write_scans(tmp_path / "scans", {f"s{n}": f"slow {n}" for n in range(20)})
    run_stand_in(source, tmp_path / "quiet")
    executors: list[ProcessExecutor] = []

    def start(resources: Resources, settings: WorkerSettings, folder: Path) -> Executor:
        executors.append(ProcessExecutor(resources, settings))
        return executors[0]

    killer = Killer(executors)
    killer.start()
    run_stand_in(source, tmp_path / "shot", start=start)
    killer.stop()
    assert killer.kills > 2
    shot, quiet = rows_by_name(tmp_path / "shot"), rows_by_name(tmp_path / "quiet")
    assert len(read_rows(tmp_path / "shot" / "scans.csv")) == len(shot) == 20
    for name, row in shot.items():
        assert row["status"] == "done" or (row["code"], row["attempts"]) == ("WORKER_DIED", "2")
        if row["status"] == "done":
            report = report_of(tmp_path / "shot", row)
            assert report.read_bytes() == report_of(tmp_path / "quiet", quiet[name]).read_bytes()


def report_of(output: Path, row: dict[str, str]) -> Path:
    return output / "scans" / row["scan_id"] / "report.json"


class Killer(threading.Thread):
    """Kills a worker every half second."""

    def __init__(self, executors: list[ProcessExecutor]) -> None:
        super().__init__(daemon=True)
        self._executors, self._stopped = executors, threading.Event()
        self.kills = 0

    def run(self) -> None:
        while not self._stopped.wait(0.5):
            for pid in self._executors[0].pids[:1] if self._executors else ():
                os.kill(pid, signal.SIGKILL)
                self.kills += 1

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def test_a_killed_driver_resumes_without_repeating_what_is_done(tmp_path: Path) -> None:
    source = write_scans(tmp_path / "scans", {f"s{n}": f"slow {n}" for n in range(12)})
    output = tmp_path / "out"
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from fixtures.cohorts import run_stand_in
run_stand_in(Path({str(source)!r}), Path({str(output)!r}))
"""
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    journal = output / "private" / "journal.jsonl"
    deadline = time.monotonic() + 60
    while len(read_journal(journal)) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = psutil.Process(driver.pid).children()
    driver.kill()
    driver.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []
    before = read_journal(journal)
    assert 3 <= len(before) < 12
    times = {name: (output / "scans" / name / "report.json").stat().st_mtime_ns for name in before}
    assert run_stand_in(source, output, resume=True) == 0
    assert {row["status"] for row in read_rows(output / "scans.csv")} == {"done"}
    assert {name: (output / "scans" / name / "report.json").stat().st_mtime_ns for name in before} == times


def test_the_journal_survives_a_line_that_a_crash_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.add(Outcome(scan_id="a", key="1"))
    with open(path, "ab") as file:
        file.write(b'{"scan_id": "b", "co')
    with Journal(path) as journal:
        journal.add(Outcome(scan_id="c", key="2"))
    assert {name: outcome.key for name, outcome in read_journal(path).items()} == {"a": "1", "c": "2"}


def test_two_cohorts_cannot_write_to_one_folder(tmp_path: Path) -> None:
    lock = tmp_path / "out" / "private" / "lock"
    lock.parent.mkdir(parents=True)
    with locked(lock), pytest.raises(DiffusionSegmentError) as caught, locked(lock):
        pytest.fail("the lock was taken twice")
    assert caught.value.code is ErrorCode.BUSY
    assert not lock.exists()


def test_the_lock_of_a_process_that_has_ended_is_taken_over(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from DiffusionSegmentBackend.cohort.lock import locked
with locked(Path({str(lock)!r})):
    os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert lock.exists()
    with locked(lock):
        assert str(os.getpid()) in lock.read_text()


def test_a_terminated_driver_ends_its_workers_and_writes_the_tables(tmp_path: Path) -> None:
    source = write_scans(tmp_path / "scans", {"a": "", "hangs": "hang", "b": "x"})
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from fixtures.cohorts import run_stand_in
from DiffusionSegmentBackend.errors import DiffusionSegmentError
try:
    run_stand_in(Path({str(source)!r}), Path({str(tmp_path / "out")!r}), workers=1)
except DiffusionSegmentError as error:
    sys.exit(error.exit_status)
"""
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(read_journal(tmp_path / "out" / "private" / "journal.jsonl")) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = psutil.Process(driver.pid).children()
    driver.terminate()
    assert driver.wait(30) == 130
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    assert codes(tmp_path / "out")["hangs"] == ("waiting", "", "")
    assert not (tmp_path / "out" / "private" / "lock").exists()
