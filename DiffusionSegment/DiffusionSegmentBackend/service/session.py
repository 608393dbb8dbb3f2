"""A session: one user's volumes, worker process and run."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import DiffusionSegmentError, ErrorCode
from ..protocol.messages import (
    ANSWERS,
    Alternatives,
    CancelledNotice,
    Correct,
    Error,
    Message,
    Preview,
    Review,
    Segment,
    SelfTest,
    Similar,
    Task,
)
from .fair_queue import FairQueue
from .limits import ServiceLimits
from .run import Run
from .volume_files import VolumeFile, of_answer
from .volume_references import volume_references
from .worker import Worker

# What a server runs: no task that reads or writes other files, or changes the installed models.
SERVED = (Segment, Review, Correct, Alternatives, Similar, SelfTest)
_UNFORESEEN = (ErrorCode.INTERNAL.value, ErrorCode.WORKER_DIED.value)

# Gets the outcome of a run ("result", "cancelled" or an error's code), and its seconds without those in the queue.
RunEnded = Callable[[str, float], None]

_log = logging.getLogger(__name__)


class Session:
    """The state of one session; everything of it lies in `folder`, which only the server can read."""

    def __init__(self, session_id: str, user: str, folder: Path, worker: Worker) -> None:
        self.id = session_id
        self.user = user
        self.folder = folder
        self.worker = worker
        self.volumes: dict[str, VolumeFile] = {}
        self.run: Run | None = None
        self.used = time.monotonic()
        self._answers: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a run waits or is in progress."""
        return self.run is not None and not self.run.finished

    @property
    def volume_bytes(self) -> int:
        """The bytes of all its volumes."""
        return sum(volume.total for volume in self.volumes.values())

    def start(self, task: Task, queue: FairQueue, ended: RunEnded, limits: ServiceLimits) -> Run:
        """Start a run, or return the one with this id; answers of the run before it are deleted.

        Raises:
            DiffusionSegmentError: BUSY during another run; PROTOCOL or SESSION_LOST for its volumes.
        """
        if self.run is not None and self.run.id == task.id:
            return self.run
        if self.busy:
            raise DiffusionSegmentError(ErrorCode.BUSY, "A run is in progress.", hint="Cancel it or wait.")
        local = self._with_files(task)
        for name in list(self._answers):
            self.remove(name)
        self.run = Run(task.id)
        self._task = asyncio.create_task(self._execute(local, self.run, queue, ended, limits.run_seconds))
        return self.run

    def cancel(self) -> None:
        """Cancel the run, in the queue or in the worker; nothing happens where there is none."""
        run = self.run
        if run is None or run.finished or run.cancelled:
            return
        run.stopped.set()
        self.worker.cancel(run.id)

    def remove(self, name: str) -> None:
        """Delete a volume."""
        self._answers.discard(name)
        volume = self.volumes.pop(name, None)
        if volume is not None:
            volume.path.unlink(missing_ok=True)

    async def close(self) -> None:
        """End the worker and delete every file."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.worker.stop()
        self.volumes.clear()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def _execute(self, task: Task, run: Run, queue: FairQueue, ended: RunEnded, seconds: float) -> None:
        ticket = queue.enter(self.user, run.queued)
        started = time.monotonic()
        try:
            await _first(ticket.admitted.wait(), run.stopped.wait())
            started = time.monotonic()
            if run.cancelled:
                self._publish(run, CancelledNotice(id=run.id))
            else:
                await asyncio.wait_for(self.worker.run(task, lambda message: self._publish(run, message)), seconds)
        except TimeoutError:
            await self._fail(run, DiffusionSegmentError(ErrorCode.SERVER_LIMIT, f"The run took over {seconds:.0f} s."))
        except DiffusionSegmentError as error:
            await self._fail(run, error)
        except OSError as error:
            _log.error("session %s: %s", self.id[:8], type(error).__name__)
            await self._fail(run, DiffusionSegmentError(ErrorCode.INTERNAL, "The server could not run the request."))
        finally:
            queue.leave(ticket)
            self.used = time.monotonic()
            run.finish()
            ended(run.outcome, self.used - started)

    async def _fail(self, run: Run, error: DiffusionSegmentError) -> None:
        """End a run whose worker has failed; the next run starts another worker."""
        await self.worker.stop()
        answer = CancelledNotice(id=run.id) if run.cancelled else Error.of(error, run.id)
        self._publish(run, answer)

    def _publish(self, run: Run, message: Message) -> None:
        """Keep a message of the worker for the client, its files under new names."""
        named = {}
        for name, reference in volume_references(message).items():
            volume = of_answer(reference, self.folder)
            if run.cancelled:
                volume.path.unlink(missing_ok=True)
                continue
            identifier = secrets.token_hex(16)
            self.volumes[identifier] = volume
            self._answers.add(identifier)
            named[name] = replace(reference, path=identifier)
        if run.cancelled and isinstance(message, (Preview, *ANSWERS)):
            if isinstance(message, Preview):
                return
            message = CancelledNotice(id=run.id)
            named = {}
        if isinstance(message, Error) and message.code in _UNFORESEEN:
            _log.error("session %s: %s at %s", self.id[:8], message.code, self.worker.places_of_failure())
        run.add(replace(message, **named) if named else message)

    def _with_files(self, task: Task) -> Task:
        """The task with the files of its volumes.

        Raises:
            DiffusionSegmentError: SESSION_LOST for an unknown volume; PROTOCOL for one that is incomplete or of
                another shape or type.
        """
        local: dict[str, Any] = {}
        for name, reference in volume_references(task).items():
            volume = self.volumes.get(reference.path)
            if volume is None:
                raise DiffusionSegmentError(ErrorCode.SESSION_LOST, "The server does not have this volume.")
            if volume.missing or not volume.describes(reference):
                raise DiffusionSegmentError(ErrorCode.PROTOCOL, "A volume is incomplete, or another than was sent.")
            local[name] = replace(reference, path=str(volume.path))
        return replace(task, output_folder=str(self.folder), **local)


async def _first(*events: Coroutine[Any, Any, object]) -> None:
    """Wait for the first of several events."""
    tasks = [asyncio.ensure_future(event) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
