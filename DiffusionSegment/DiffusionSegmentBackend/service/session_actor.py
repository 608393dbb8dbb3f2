"""The part of a session on a computer of a Ray cluster: its worker process, and copies of its volumes beside it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..errors import DiffusionSegmentError
from ..process.process_folder import process_folder
from ..protocol.buffers import write_part
from ..protocol.messages import Error, Message, Task, decode, encode
from .volume_references import volume_references
from .worker_process import WORKER_COMMAND, WorkerProcess, worker_environment

_PREFIX = "diffusionsegment-actor-"


@dataclass(frozen=True)
class Step:
    """A line of a run. With `failed`, the worker process ended instead, at `places`, and the line is the error."""

    line: bytes
    failed: bool = False
    places: str = ""


class SessionActor:
    """Runs in a process of Ray. Volumes are named by their file names in a private folder.

    Args:
        command: Command of a worker process; None for the worker of the package that is installed on this computer.
    """

    def __init__(self, command: Sequence[str] | None) -> None:
        os.umask(0o077)
        self._folder = process_folder(_PREFIX)
        self._worker = WorkerProcess(command or WORKER_COMMAND, self._folder, worker_environment())

    async def describe(self) -> str:
        """The version of this package."""
        return __version__

    async def keep(self, names: Sequence[str]) -> None:
        """Delete all volumes but these."""
        for path in self._folder.glob("*.raw"):
            if path.name not in names:
                path.unlink(missing_ok=True)

    async def write(self, name: str, start: int, data: NDArray[np.uint8]) -> None:
        """Write a part of a volume."""
        await asyncio.to_thread(write_part, self._folder / Path(name).name, start, data.data)

    async def read(self, name: str, start: int, size: int) -> NDArray[np.uint8]:
        """A part of a volume."""
        return await asyncio.to_thread(read_part, self._folder / Path(name).name, start, size)

    async def run(self, line: bytes) -> AsyncIterator[Step]:
        """Run a task, a line of the worker protocol, and give all its messages as they come."""
        task = decode(line)
        assert isinstance(task, Task)
        local = replace(task, output_folder=str(self._folder), **self._with(task, self._folder))
        messages: asyncio.Queue[Message | None] = asyncio.Queue()
        running = asyncio.create_task(self._worker.run(local, messages.put_nowait))
        running.add_done_callback(lambda _: messages.put_nowait(None))
        while (message := await messages.get()) is not None:
            named = self._with(message, Path())
            yield Step(encode(replace(message, **named) if named else message))
        try:
            running.result()
        except DiffusionSegmentError as error:
            await self._worker.stop()
            yield Step(encode(Error.of(error, task.id)), failed=True, places=self._worker.places_of_failure())

    async def cancel(self, task_id: str) -> None:
        """Stop a run within one denoising step."""
        self._worker.cancel(task_id)

    async def close(self) -> None:
        """End the worker and delete every file."""
        await self._worker.stop()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    @staticmethod
    def _with(message: Message, folder: Path) -> dict[str, Any]:
        """The volumes of a message, their files in another folder."""
        return {
            name: replace(reference, path=str(folder / Path(reference.path).name))
            for name, reference in volume_references(message).items()
        }


def read_part(path: Path, start: int, size: int) -> NDArray[np.uint8]:
    """Bytes of a file."""
    return np.fromfile(path, np.uint8, size, offset=start)
