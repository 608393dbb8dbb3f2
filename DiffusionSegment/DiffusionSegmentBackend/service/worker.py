"""What a session asks of its worker, which runs on this computer or on one of a cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from ..protocol.messages import ANSWERS, CancelledNotice, Error, Message, Task

# The last message of a run.
ENDS = (*ANSWERS, Error, CancelledNotice)


class Worker(Protocol):
    """A worker of one session; at most one run at a time."""

    @property
    def running(self) -> bool:
        """Whether it holds a process."""
        ...

    async def run(self, task: Task, deliver: Callable[[Message], None]) -> None:
        """Run a task and deliver all its messages, the last of which is its answer, refusal or cancellation notice.

        Volumes of the task and of the messages are files in the folder of the session.

        Raises:
            DiffusionSegmentError: WORKER_DIED when the process ended before; SERVER_FULL without room for one.
        """
        ...

    def cancel(self, task_id: str) -> None:
        """Ask to stop a run within one denoising step; it may not have been sent yet."""
        ...

    async def stop(self) -> None:
        """End the process; the next run starts another."""
        ...

    def places_of_failure(self) -> str:
        """Files, lines and functions of the last traceback, without any value."""
        ...


# Ends the worker of the session that has been idle longest, if there is one.
MakeRoom = Callable[[], Awaitable[None]]
# Makes the worker of a session, which has this folder.
MakeWorker = Callable[[Path, MakeRoom], Worker]
