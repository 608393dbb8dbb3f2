"""Clients that connect, start a run, cancel and leave, again and again; what the server holds after each tenth.

`PYTHONPATH=DiffusionSegment:Testing python Testing/service/cycles.py [--count N]`
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from DiffusionSegmentBackend.errors import Cancelled
from DiffusionSegmentBackend.protocol.buffers import write_buffer
from DiffusionSegmentBackend.protocol.messages import Message, Segment, VolumeReference
from DiffusionSegmentBackend.remote.http_client import ServerClient
from DiffusionSegmentBackend.remote.remote_session import RemoteSession
from fixtures.running_service import RunningService

WORKER = [sys.executable, "-u", "-S", str(Path(__file__).with_name("waiting_worker.py"))]
LIMITS = {"openings_per_minute": 1_000_000}


@dataclass(frozen=True)
class Held:
    """What a server holds: memory in MB, open files, threads, worker processes, session folders."""

    memory: float
    files: int
    threads: int
    workers: int
    folders: int


def held(service: RunningService) -> Held:
    """Measure a server."""
    process = psutil.Process(service.process.pid)
    return Held(
        memory=round(process.memory_info().rss / 1e6, 1),
        files=process.num_fds(),
        threads=process.num_threads(),
        workers=len(process.children(recursive=True)),
        folders=len(list(service.work_dir.glob("session-*"))),
    )


def cycle(service: RunningService, volume: VolumeReference, folder: Path, number: int) -> None:
    """One client: every second one cancels at once, the others after the first message of the run."""
    stopped, begun = threading.Event(), threading.Event()

    def send(message: Message) -> None:
        if number % 2 == 0 or getattr(message, "stage", "") != "upload":
            begun.set()

    client = ServerClient(service.connection())
    session = RemoteSession(client, send)
    task = Segment(id=str(number), output_folder=str(folder), volume=volume, steps=2000)

    def cancel() -> None:
        begun.wait(30)
        stopped.set()
        session.cancel()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    try:
        session.run(task, stopped.is_set)
    except Cancelled:
        pass
    finally:
        begun.set()
        canceller.join()
        session.close()
        client.close()


def settled(service: RunningService) -> Held:
    """What is held once the last sessions have ended."""
    end = time.monotonic() + 30
    while (state := held(service)).folders + state.workers and time.monotonic() < end:
        time.sleep(0.1)
    return state


def run_cycles(service: RunningService, folder: Path, count: int, *, show: bool = False) -> list[Held]:
    """Run cycles; what is held after each tenth of them."""
    volume = write_buffer(folder / "scan.raw", np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4))
    states = []
    for number in range(count):
        cycle(service, volume, folder, number)
        if (number + 1) % max(count // 10, 1) == 0:
            states.append(settled(service))
            if show:
                print(number + 1, states[-1], flush=True)
    return states


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        service = RunningService(Path(name), worker_command=WORKER, limits=LIMITS)
        started = time.monotonic()
        try:
            print(0, held(service), flush=True)
            run_cycles(service, Path(name), options.count, show=True)
            print(f"{time.monotonic() - started:.0f} s")
        finally:
            service.close()


if __name__ == "__main__":
    main()
