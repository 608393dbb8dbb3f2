"""The executor on Ray: each actor supervises one worker process on some computer of the cluster."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import DiffusionSegmentError, ErrorCode
from ..process.ray_cluster import ray_cluster, require_version, unable_computer, unfit_computer
from .resources import Resources
from .scan import Job, Outcome
from .worker_process import START_SECONDS, WorkerProcess, WorkerSettings

# An actor ends its worker after the time limit; one that does not answer then hangs itself.
_GRACE_SECONDS = 60.0
_NEEDED = "All need the same version, and the folders of scans and results under the same paths."
_READY_SECONDS = 300.0


class WorkerActor:
    """Runs in a process of Ray, and supervises a worker process, which ends with it."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._worker = WorkerProcess(settings)

    def describe(self, folder: str) -> tuple[str, bool]:
        """The version of this package, and whether the folder of the cohort can be seen from here."""
        return __version__, Path(folder).is_dir()

    def run(self, job: Job) -> Outcome:
        """The outcome of a job."""
        return self._worker.run(job)

    def pid(self) -> int | None:
        """The worker process, None while there is none."""
        return self._worker.pid

    def close(self) -> None:
        """End the worker process."""
        self._worker.close()


@dataclass(frozen=True)
class _Running:
    """A job on an actor, and the time (s, monotonic) at which the actor is given up."""

    job: Job
    actor: Any
    deadline: float


class RayExecutor:
    """Runs jobs on actors, one each; an actor that dies is replaced."""

    def __init__(self, resources: Resources, settings: WorkerSettings, folder: Path, *, address: str | None) -> None:
        self._settings, self._folder = settings, folder
        self._running: dict[Any, _Running] = {}
        with ExitStack() as stack:
            self._ray = stack.enter_context(ray_cluster(address, cpus=resources.workers * resources.threads))
            # An actor is never restarted by Ray: a replacement starts without what killed it.
            self._class = self._ray.remote(
                num_cpus=resources.threads, num_gpus=resources.gpus_per_worker, max_restarts=0, max_task_retries=0
            )(WorkerActor)
            self._idle = self._start_actors(resources.workers)
            self._workers = len(self._idle)
            self._stack = stack.pop_all()

    @property
    def workers(self) -> int:
        """How many jobs run at once."""
        return self._workers

    @property
    def actors(self) -> list[Any]:
        """The handles of all actors."""
        return [*self._idle, *(running.actor for running in self._running.values())]

    def submit(self, job: Job) -> None:
        """Begin a job on an idle actor."""
        actor = self._idle.pop()
        deadline = time.monotonic() + job.seconds + START_SECONDS + _GRACE_SECONDS
        self._running[actor.run.remote(job)] = _Running(job, actor, deadline)

    def next_outcome(self) -> Outcome:
        """Wait for the next job that ends, with its actor or without."""
        while True:
            ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=1.0)
            late = [ref for ref, running in self._running.items() if time.monotonic() > running.deadline]
            for reference in (*ready, *late):
                return self._outcome_of(reference)

    def close(self) -> None:
        """End all workers at once, and the cluster if it is an own one: what they are computing is lost."""
        for actor in self._idle:
            with suppress(Exception):
                self._ray.get(actor.close.remote(), timeout=_READY_SECONDS)
        for actor in self.actors:
            # The standard input of its worker closes, which ends the worker.
            self._ray.kill(actor)
        self._stack.close()

    def _outcome_of(self, reference: Any) -> Outcome:
        running = self._running.pop(reference)
        try:
            outcome: Outcome = self._ray.get(reference, timeout=1.0)
        except self._ray.exceptions.GetTimeoutError:
            code, message = ErrorCode.TIME_LIMIT, "The actor did not answer after the time limit."
        except self._ray.exceptions.RayError as error:
            code, message = ErrorCode.WORKER_DIED, f"The actor ended ({type(error).__name__})."
        else:
            self._idle.append(running.actor)
            return outcome
        with suppress(Exception):
            self._ray.kill(running.actor)
        self._idle.append(self._class.remote(self._settings))
        return Outcome(scan_id=running.job.scan_id, code=code.value, message=message)

    def _start_actors(self, count: int) -> list[Any]:
        """Start actors and wait for them; where the cluster has room for fewer, those that it has room for.

        Raises:
            DiffusionSegmentError: NO_DEVICE where there is room for none, OPTION for a cluster with another version of
                this package or without the folder of the cohort.
        """
        actors = [self._class.remote(self._settings) for _ in range(count)]
        asked = {actor.describe.remote(str(self._folder.absolute())): actor for actor in actors}
        ready, missing = self._ray.wait(list(asked), num_returns=count, timeout=_READY_SECONDS)
        for reference in missing:
            self._ray.kill(asked[reference])
        if not ready:
            raise DiffusionSegmentError(
                ErrorCode.NO_DEVICE, "The Ray cluster has no free processors or cards.", hint="Ask for less, or wait."
            )
        try:
            descriptions = self._ray.get(ready)
        except self._ray.exceptions.RayError as error:
            raise unable_computer(error, hint=_NEEDED) from error
        for version, sees_folder in descriptions:
            require_version(version, hint=_NEEDED)
            if not sees_folder:
                raise unfit_computer(f"does not have the folder {self._folder.parent}", hint=_NEEDED)
        if missing:
            print(f"The Ray cluster has room for {len(ready)} of {count} workers.", file=sys.stderr)
        return [asked[reference] for reference in ready]
