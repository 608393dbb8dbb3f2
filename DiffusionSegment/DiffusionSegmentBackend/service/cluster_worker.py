"""The worker of a session on a Ray cluster: an actor started for it, and the way of its volumes there and back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import Cancelled, DiffusionSegmentError, ErrorCode
from ..protocol.buffers import write_part
from ..protocol.messages import Error, Message, Task, VolumeReference, decode, encode
from ..protocol.slabs import slab_count, slab_range, volume_bytes
from .cluster import Cluster
from .session_actor import Step, read_part
from .volume_references import volume_references
from .worker import ENDS, MakeRoom

_STOP_SECONDS = 5.0
_PARTS_AT_ONCE = 2

_log = logging.getLogger(__name__)


class ClusterWorker:
    """A worker on whichever computer of the cluster has room; where that one fails, a run is repeated on another.

    Args:
        cluster: The cluster.
        folder: Folder of the session on this computer.
        make_room: Ends an idle worker.
    """

    def __init__(self, cluster: Cluster, folder: Path, make_room: MakeRoom) -> None:
        self._cluster = cluster
        self._folder = folder
        self._make_room = make_room
        self._actor: Any = None
        self._starting: asyncio.Task[Any] | None = None
        self._sent: set[str] = set()
        self._cancelled = self._places = ""

    @property
    def running(self) -> bool:
        """Whether it has an actor."""
        return self._actor is not None

    async def run(self, task: Task, deliver: Callable[[Message], None]) -> None:
        """As `Worker.run`; an actor or a computer that dies costs time, not the run."""
        try:
            await self._run(task, deliver)
        except self._cluster.ray.exceptions.RayError as error:
            _log.warning("an actor ended (%s), and its run is repeated on another", type(error).__name__)
            await self.stop()
            try:
                await self._run(task, deliver)
            except self._cluster.ray.exceptions.RayError as again:
                raise DiffusionSegmentError(
                    ErrorCode.WORKER_DIED, "Two computers of the cluster have failed.", hint="Try again later."
                ) from again

    def cancel(self, task_id: str) -> None:
        """As `Worker.cancel`."""
        self._cancelled = task_id
        if self._actor is not None:
            self._actor.cancel.remote(task_id)
        elif self._starting is not None:
            self._starting.cancel()

    async def stop(self) -> None:
        """End the actor, with its worker process and files."""
        actor, self._actor = self._actor, None
        self._sent.clear()
        if actor is not None:
            with contextlib.suppress(TimeoutError, self._cluster.ray.exceptions.RayError):
                await asyncio.wait_for(actor.close.remote(), _STOP_SECONDS)
            self._cluster.ray.kill(actor)

    def places_of_failure(self) -> str:
        """As `Worker.places_of_failure`."""
        return self._places

    async def _run(self, task: Task, deliver: Callable[[Message], None]) -> None:
        if self._actor is None:
            self._actor = await self._start(task)
        actor, references = self._actor, volume_references(task)
        names = {name: Path(reference.path).name for name, reference in references.items()}
        await actor.keep.remote(list(names.values()))
        self._sent &= set(names.values())
        for name, reference in references.items():
            if names[name] not in self._sent:
                await self._send(actor, reference)
                self._sent.add(names[name])
        if self._cancelled == task.id:
            actor.cancel.remote(task.id)
        named: dict[str, Any] = {name: replace(references[name], path=file) for name, file in names.items()}
        async for step in self._steps(actor, replace(task, **named)):
            message = decode(step.line)
            if step.failed:
                self._places = step.places
                assert isinstance(message, Error)
                raise message.as_exception()
            deliver(await self._with_files(actor, message))
            if isinstance(message, ENDS):
                # At once, because the client may start its next run.
                return

    async def _start(self, task: Task) -> Any:
        """A new actor.

        Raises:
            DiffusionSegmentError: As `Cluster.start_actor`; CANCELLED for a run that is cancelled meanwhile.
        """
        self._starting = asyncio.create_task(self._cluster.start_actor(self._make_room))
        if self._cancelled == task.id:
            self._starting.cancel()
        try:
            return await self._starting
        except asyncio.CancelledError:
            if self._cancelled == task.id:
                raise Cancelled from None
            raise
        finally:
            self._starting = None

    async def _steps(self, actor: Any, task: Task) -> AsyncIterator[Step]:
        async for reference in actor.run.options(num_returns="streaming").remote(encode(task)):
            yield await reference

    async def _with_files(self, actor: Any, message: Message) -> Message:
        """A message with its volumes in the folder of the session."""
        local = {}
        for name, reference in volume_references(message).items():
            await self._fetch(actor, reference)
            local[name] = replace(reference, path=str(self._folder / Path(reference.path).name))
        return replace(message, **local) if local else message

    async def _send(self, actor: Any, reference: VolumeReference) -> None:
        path = Path(reference.path)

        async def send(part: range) -> None:
            data = await asyncio.to_thread(read_part, path, part.start, len(part))
            await actor.write.remote(path.name, part.start, data)

        await _each_part(reference, send)

    async def _fetch(self, actor: Any, reference: VolumeReference) -> None:
        name = Path(reference.path).name

        async def fetch(part: range) -> None:
            data = await actor.read.remote(name, part.start, len(part))
            await asyncio.to_thread(write_part, self._folder / name, part.start, data.data)

        await _each_part(reference, fetch)


async def _each_part(reference: VolumeReference, move: Callable[[range], Any]) -> None:
    """Move all parts of a volume, two at once, so that little of it lies in the memory of Ray."""
    total = volume_bytes(reference.shape, reference.dtype)
    parts = iter([slab_range(total, index) for index in range(slab_count(total))])

    async def mover() -> None:
        for part in parts:
            await move(part)

    # Not a TaskGroup, which would hide an error of Ray in a group of errors.
    await asyncio.gather(*(mover() for _ in range(_PARTS_AT_ONCE)))
