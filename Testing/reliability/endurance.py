"""Long use in a short time: `python -m reliability.endurance --cycles 1000 --clicks 960 -o endurance.json`.

A cycle is Segment, then Cancel. A click is an action drawn from the seed: a segmentation, a cancel, a refused or
failing request, a killed worker; 960 are eight hours of one click every thirty seconds. The processes, open files,
threads, files on disk and memory of client and worker are counted before and after.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from DiffusionSegmentBackend.errors import DiffusionSegmentError
from DiffusionSegmentLib.worker.worker_state import WorkerState
from worker.conftest import Session

ENGINE = [sys.executable, "-u", str(Path(__file__).resolve().parents[1] / "worker" / "engine_process.py")]
MAX_LEAKED_BYTES = 50_000_000
_WARM_UP = 20
_ACTIONS = ("segment", "segment", "segment", "cancel", "cancel", "refuse", "bug", "memory", "busy", "kill", "crash")


@dataclass(frozen=True)
class Footprint:
    """Resources of this process and its worker; `files` and `disk_bytes` are those of the session folder."""

    children: int
    descriptors: int
    threads: int
    files: int
    disk_bytes: int
    client_bytes: int
    worker_bytes: int


@dataclass(frozen=True)
class Endured:
    """Actions by kind, footprints after a warm-up and at the end, and what is left after the client closed (`left`)."""

    done: dict[str, int]
    seconds: float
    before: Footprint
    after: Footprint
    left: tuple[str, ...]

    @property
    def leaks(self) -> list[str]:
        """Resources that grew."""
        grown = [
            name
            for name in ("children", "descriptors", "threads", "files")
            if getattr(self.after, name) > getattr(self.before, name)
        ]
        for name in ("disk_bytes", "client_bytes", "worker_bytes"):
            if getattr(self.after, name) - getattr(self.before, name) > MAX_LEAKED_BYTES:
                grown.append(name)
        return grown + list(self.left)


def footprint(session: Session) -> Footprint:
    """Read the footprint from /proc (Linux)."""
    folder = session.client._folder
    files = list(folder.iterdir()) if folder is not None and folder.exists() else []
    return Footprint(
        children=len(children()),
        descriptors=len(os.listdir("/proc/self/fd")),
        threads=len(os.listdir("/proc/self/task")),
        files=len(files),
        disk_bytes=sum(file.stat().st_size for file in files),
        client_bytes=_resident(os.getpid()),
        worker_bytes=_resident(session.pid) if session.client.hello is not None else 0,
    )


def children() -> list[int]:
    """Child processes of this one, including zombies."""
    pids = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            pids.append(int(status.parent.name))
    return pids


def _resident(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")), 0)


def endure(*, cycles: int, clicks: int, seed: int = 1) -> Endured:
    """Run the cycles, then the clicks, on one client with the real worker around the test engine."""
    rng, done, began = Random(seed), Counter[str](), time.monotonic()
    session, standing = Session(ENGINE), set(children())
    try:
        for _ in range(_WARM_UP):
            _act(session, "cancel")
        before = footprint(session)
        for _ in range(cycles):
            _act(session, "cancel")
            done["segment-cancel cycles"] += 1
        for _ in range(clicks):
            action = rng.choice(_ACTIONS)
            _act(session, action)
            done[action] += 1
        # If the last action killed the worker, its successor must have started before it is measured.
        _act(session, "segment")
        after = footprint(session)
        folder = session.client._folder
    finally:
        session.client.close()
    left = [f"process {pid}" for pid in children() if pid not in standing]
    left += [f"folder {folder}"] if folder is not None and folder.exists() else []
    return Endured(dict(done), round(time.monotonic() - began, 1), before, after, tuple(left))


def _act(session: Session, action: str) -> None:
    """One action and its reply.

    Raises:
        AssertionError: an unexpected reply.
    """
    session.events.clear()
    # The session keeps the transports of ended workers, which would count as a leak.
    del session.transports[:-1]
    fault = (action,) if action in ("refuse", "bug", "memory", "crash") else None
    session.segment(steps=200 if action in ("cancel", "kill", "busy") else 1, organs=fault)
    if action == "busy":
        _refused(session)
    if action in ("cancel", "busy"):
        session.until(lambda: session.client.state is WorkerState.BUSY)
        session.client.cancel()
    if action == "kill":
        session.until(lambda: session.client.state is WorkerState.BUSY)
        os.kill(session.pid, signal.SIGKILL)
    session.first({"segment": "finished", "cancel": "cancelled", "busy": "cancelled"}.get(action, "failed"))
    for name, value in session.events:
        if name == "finished":
            session.client.release(value)
    session.until(lambda: session.client.state is WorkerState.READY)


def _refused(session: Session) -> None:
    try:
        session.segment()
    except DiffusionSegmentError:
        return
    raise AssertionError("a second request was accepted during a run")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print and write the result; 1 if something leaked."""
    parser = argparse.ArgumentParser(prog="python -m reliability.endurance", description=__doc__)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--clicks", type=int, default=960)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="endurance-") as folder:
        tempfile.tempdir = folder
        endured = endure(cycles=options.cycles, clicks=options.clicks, seed=options.seed)
    text = json.dumps({**asdict(endured), "leaks": endured.leaks}, indent=2)
    print(text)
    if options.output is not None:
        options.output.write_text(text + "\n", encoding="utf-8")
    return int(bool(endured.leaks))


if __name__ == "__main__":
    sys.exit(main())
