"""Measurements of cohorts, a line each: `python Testing/cohort/measure_cohort.py speed | scheduling | kills`.

PYTHONPATH has to contain DiffusionSegment and Testing.

`speed` compares two workers of one thread with one, with the model of the abdomen on phantoms. `scheduling` runs many
scans with a stand-in for the networks. `kills` ends workers at random and compares the results with those of an
undisturbed run.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import psutil
from DiffusionSegmentBackend.cohort.dispatcher import dispatch
from DiffusionSegmentBackend.cohort.executors import executor_starter
from DiffusionSegmentBackend.cohort.resources import Resources
from DiffusionSegmentBackend.cohort.scan import Job, Outcome
from DiffusionSegmentBackend.cohort.worker_process import WorkerSettings
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import write_volume
from DiffusionSegmentBackend.phantom.phantom import make_phantom
from DiffusionSegmentBackend.protocol.requests import SegmentFiles
from DiffusionSegmentBackend.schema.run_options import RunOptions
from fixtures.cohorts import read_rows, rows_by_name, run_stand_in, write_scans

_SIZE_MM = (189.0, 189.0, 189.0)
_SPACING_MM = (3.0, 3.0, 3.0)


def measure_speed(folder: Path, *, scans: int, repeats: int, executor: str) -> None:
    """Scans an hour of one warm worker and of two, several times, their ratio, and processor seconds for a scan.

    Other programs change the processor time little: two workers that do not hinder each other need as much for a scan
    as one.
    """
    for number in range(scans):
        phantom = make_phantom(seed=number, spacing_mm=_SPACING_MM, size_mm=_SIZE_MM)
        write_volume(Volume(phantom.image, phantom.index_to_lps), folder / f"{number}.nii.gz")
    ratios = []
    for repeat in range(repeats):
        measured = {workers: _seconds(folder, scans, workers, executor) for workers in (1, 2)}
        ratios.append(measured[1][0] / measured[2][0])
        rates = ", ".join(
            f"{n} worker{'s' * (n > 1)} {3600 * scans / wall:.0f} scans/h and {cpu / scans:.2f} processor s a scan"
            for n, (wall, cpu) in measured.items()
        )
        print(f"repeat {repeat + 1}: {rates}, ratio {ratios[-1]:.2f}, load {os.getloadavg()[0]:.1f}", flush=True)
    print(f"ratio {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}, {executor}")


def _seconds(folder: Path, scans: int, workers: int, executor: str) -> tuple[float, float]:
    """Seconds by the clock and of the processor, that of the workers alone."""
    outcomes: list[Outcome] = []
    start = executor_starter(executor, None)
    running = start(Resources(workers=workers, threads=1), WorkerSettings(threads=1), folder)
    try:
        # Each worker has loaded the model before the time is taken.
        dispatch([_job(folder, number, "warm") for number in range(workers)], running, outcomes.append)
        begun, cpu = time.monotonic(), _worker_seconds()
        dispatch([_job(folder, number, f"of{workers}") for number in range(scans)], running, outcomes.append)
        seconds, cpu = time.monotonic() - begun, _worker_seconds() - cpu
    finally:
        running.close()
    failed = [outcome for outcome in outcomes if outcome.code]
    assert not failed, failed
    return seconds, cpu


def _worker_seconds() -> float:
    """The processor time of all worker processes so far."""
    total = 0.0
    for pid, line in _children():
        if "worker_main" in line:
            times = psutil.Process(pid).cpu_times()
            total += times.user + times.system
    return total


def _job(folder: Path, number: int, run: str) -> Job:
    name = f"{number}-{run}"
    request = SegmentFiles(
        id=name,
        output_folder=str(folder),
        scan=str(folder / f"{number}.nii.gz"),
        result_folder=str(folder / name),
        thumbnail=str(folder / f"{name}.png"),
        device="cpu",
        samples=1,
        steps=1,
        force=True,
    )
    return Job(scan_id=name, request=request, seconds=1800)


def measure_scheduling(folder: Path, *, scans: int, executor: str) -> None:
    """Milliseconds for a scan with nothing to compute, and the driver's memory while it dispatches."""
    source = write_scans(folder / "scans", {f"{number:06d}": str(number) for number in range(scans)})
    samples: list[_DriverSample] = []
    with _sampled(samples, folder / "out" / "private" / "journal.jsonl"):
        begun, cpu = time.monotonic(), time.process_time()
        with redirect_stdout(StringIO()):
            status = run_stand_in(source, folder / "out", start=executor_starter(executor, None), identifiers=False)
        seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
    rows = len(read_rows(folder / "out" / "scans.csv"))
    journal = samples[-1].journal_bytes
    first, last = (next(one for one in samples if one.journal_bytes >= part * journal) for part in (0.1, 0.9))
    scan_ms = 1000 * (last.seconds - first.seconds) / (0.8 * scans)
    driver_ms = 1000 * (last.processor_seconds - first.processor_seconds) / (0.8 * scans)
    print(
        f"{rows} rows of {scans} scans, status {status}: {scan_ms:.2f} ms a scan between the first and the last tenth, "
        f"of which {driver_ms:.2f} ms of the driver's processor; with discovery, tables and page "
        f"{1000 * seconds / scans:.2f} and {1000 * cpu / scans:.2f} ms. Memory of the driver after the first tenth "
        f"{first.memory_mb:.0f} MB, after nine tenths {last.memory_mb:.0f} MB, with tables and page at most "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000:.0f} MB, {executor}, load {os.getloadavg()[0]:.1f}"
    )


@dataclass(frozen=True)
class _DriverSample:
    seconds: float
    processor_seconds: float
    memory_mb: float
    journal_bytes: int


@contextmanager
def _sampled(samples: list[_DriverSample], journal: Path) -> Iterator[None]:
    """Append the state of this process and the size of the journal five times a second."""
    stopped = threading.Event()

    def sample() -> None:
        while not stopped.wait(0.2):
            size = journal.stat().st_size if journal.exists() else 0
            memory_mb = psutil.Process().memory_info().rss / 1e6
            samples.append(_DriverSample(time.monotonic(), time.process_time(), memory_mb, size))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def measure_kills(folder: Path, *, scans: int, executor: str, real: bool, seconds: float) -> None:
    """Rows and results of a cohort whose workers, or the actors above them, are killed at random."""
    if real:
        # Imports PyTorch, which the other measurements of the driver's memory do without.
        from fixtures.tiny_model import coarse_phantom, write_tiny_model

        model = str(write_tiny_model(folder / "models"))
        more = {"run": RunOptions(model=model, force=True, device="cpu"), "worker": WorkerSettings(threads=1)}
        for number in range(scans):
            (folder / "scans").mkdir(exist_ok=True)
            write_volume(coarse_phantom(number), folder / "scans" / f"{number}.nii")
    else:
        write_scans(folder / "scans", {f"{number}": f"slow {number}" for number in range(scans)})
        more = {}
    words = ("worker_main",) if real else ("stand_in_worker",)
    with redirect_stdout(StringIO()):
        run_stand_in(folder / "scans", folder / "quiet", start=executor_starter(executor, None), **more)
        with _killing(words if executor == "processes" else (*words, "WorkerActor"), seconds) as kills:
            run_stand_in(folder / "scans", folder / "shot", start=executor_starter(executor, None), **more)
    shot, quiet = rows_by_name(folder / "shot"), rows_by_name(folder / "quiet")
    done = {name for name, row in shot.items() if row["status"] == "done"}
    equal = sum(_maps(folder / "shot", shot[name]) == _maps(folder / "quiet", quiet[name]) for name in done)
    twice = sum(row["code"] == "WORKER_DIED" for row in shot.values())
    rows = len(read_rows(folder / "shot" / "scans.csv"))
    print(
        f"{len(kills)} kills during {scans} scans: {rows} rows, {len(done)} results of which {equal} equal those "
        f"of the undisturbed run, {twice} scans killed twice, {executor}, {'small model' if real else 'stand-in'}"
    )


def _maps(output: Path, row: dict[str, str]) -> dict[str, bytes]:
    """The bytes of all maps of a result, or of its report where a stand-in writes no maps."""
    folder = output / "scans" / row["scan_id"]
    files = sorted(folder.glob("*.nii.gz")) or [folder / "report.json"]
    return {path.name: path.read_bytes() for path in files}


@contextmanager
def _killing(words: tuple[str, ...], seconds: float) -> Iterator[list[int]]:
    """Kill a random process below this one whose command line has one of the words, about every so many seconds."""
    stopped, kills, chance = threading.Event(), list[int](), random.Random(0)

    def kill() -> None:
        while not stopped.wait(chance.uniform(0.5, 1.5) * seconds):
            matching = [pid for pid, line in _children() if any(word in line for word in words)]
            with suppress(ProcessLookupError):
                if matching:
                    os.kill(pid := chance.choice(matching), signal.SIGKILL)
                    kills.append(pid)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        yield kills
    finally:
        stopped.set()
        thread.join()


def _children() -> Iterator[tuple[int, str]]:
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            yield process.pid, " ".join(process.cmdline())


def main() -> None:
    """Run one measurement in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=("speed", "scheduling", "kills"))
    parser.add_argument("--scans", type=int)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--executor", choices=("processes", "ray"), default="processes")
    parser.add_argument("--real", action="store_true", help="kills: the small model of the tests, not the stand-in")
    parser.add_argument("--every", type=float, default=1.0, help="kills: seconds between two, on average")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measures: dict[str, Callable[[], None]] = {
            "speed": lambda: measure_speed(
                folder, scans=options.scans or 8, repeats=options.repeats, executor=options.executor
            ),
            "scheduling": lambda: measure_scheduling(folder, scans=options.scans or 20_000, executor=options.executor),
            "kills": lambda: measure_kills(
                folder,
                scans=options.scans or 200,
                executor=options.executor,
                real=options.real,
                seconds=options.every,
            ),
        }
        measures[options.measure]()


if __name__ == "__main__":
    main()
