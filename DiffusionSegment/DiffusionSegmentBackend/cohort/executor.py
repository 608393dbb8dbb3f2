"""Executors run jobs on workers: here each worker has a thread of this process, which waits for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from .resources import Resources, visible_cards
from .scan import Job, Outcome
from .worker_process import WorkerProcess, WorkerSettings


class Executor(Protocol):
    """Runs jobs; each gives exactly one outcome."""

    @property
    def workers(self) -> int:
        """How many jobs run at once."""

    def submit(self, job: Job) -> None:
        """Begin a job; to be called while fewer than `workers` are running."""

    def next_outcome(self) -> Outcome:
        """Wait for the next job that ends."""

    def close(self) -> None:
        """End all workers."""


# Starts an executor for the private folder of a cohort, which all its workers must see.
StartExecutor = Callable[[Resources, WorkerSettings, Path], Executor]


class ProcessExecutor:
    """Worker processes of this computer."""

    def __init__(self, resources: Resources, settings: WorkerSettings) -> None:
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._outcomes: queue.Queue[Outcome] = queue.Queue()
        self._supervisors = [
            WorkerProcess(settings, environment=cuda_environment(number, resources.gpus_per_worker, visible_cards()))
            for number in range(resources.workers)
        ]
        self._threads = [
            threading.Thread(target=self._serve, args=(supervisor,), name=f"worker {number}", daemon=True)
            for number, supervisor in enumerate(self._supervisors)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def workers(self) -> int:
        """How many jobs run at once."""
        return len(self._supervisors)

    @property
    def pids(self) -> list[int]:
        """The worker processes that are running."""
        return [pid for supervisor in self._supervisors if (pid := supervisor.pid) is not None]

    def submit(self, job: Job) -> None:
        """Begin a job."""
        self._jobs.put(job)

    def next_outcome(self) -> Outcome:
        """Wait for the next job that ends; an interrupt from the keyboard ends the wait."""
        while True:
            try:
                # Without a timeout, Windows does not deliver an interrupt.
                return self._outcomes.get(timeout=1.0)
            except queue.Empty:
                continue

    def close(self) -> None:
        """End all workers at once: what they are computing is lost."""
        for _ in self._threads:
            self._jobs.put(None)
        for supervisor in self._supervisors:
            supervisor.close()
        for thread in self._threads:
            thread.join()

    def _serve(self, supervisor: WorkerProcess) -> None:
        while (job := self._jobs.get()) is not None:
            self._outcomes.put(supervisor.run(job))


def cuda_environment(number: int, gpus_per_worker: float, cards: Sequence[str]) -> dict[str, str]:
    """The environment in which a worker sees its share of the cards: 0.5 gives workers 0 and 1 the first one.

    With more workers than shares, cards are shared by more. Without a share or a card the environment is empty.
    """
    if gpus_per_worker <= 0 or not cards:
        return {}
    first = int(number * gpus_per_worker)
    own = {cards[(first + n) % len(cards)] for n in range(max(1, int(gpus_per_worker)))}
    return {"CUDA_VISIBLE_DEVICES": ",".join(sorted(own))}
