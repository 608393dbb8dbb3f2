"""The worker process of a node: one request at a time, each with a time limit; a dead worker is replaced."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from queue import Empty

from ..errors import DiffusionSegmentError, ErrorCode
from ..process.worker_child import WorkerChild
from ..protocol.messages import ANSWERS, Answer, Error, Task

_MAX_WAIT_S = 1.0
_TRY_AGAIN = "It is tried again."


class WorkerProcess:
    """Runs tasks in a worker process, which is started by the first task and stays warm."""

    def __init__(self, command: Sequence[str], *, show_log: bool = False) -> None:
        self._child = WorkerChild(command, show_log=show_log)
        self._stopped = threading.Event()
        self.starts = 0

    def run(self, task: Task, *, seconds: float) -> Answer:
        """Run a task; a worker that does not answer within `seconds` is ended.

        Raises:
            DiffusionSegmentError: what the worker answers; WORKER_DIED if it exits or is too slow; CANCELLED after
                `close`.
        """
        deadline = time.monotonic() + seconds
        if not self._child.running:
            self._start()
        self._child.send(task)
        while True:
            try:
                message = self._child.receive(min(_MAX_WAIT_S, deadline - time.monotonic()))
            except Empty:
                if time.monotonic() >= deadline:
                    self._child.end()
                    raise _died(f"The run did not end within {seconds / 60:g} min.") from None
                continue
            if message is None:
                self._child.end()
                if self._stopped.is_set():
                    raise _stopped()
                raise _died("The segmentation process stopped unexpectedly.")
            if isinstance(message, ANSWERS) and message.id == task.id:
                return message
            if isinstance(message, Error) and message.id in (task.id, None):
                raise message.as_exception()

    def close(self) -> None:
        """End the worker; a running task raises CANCELLED."""
        self._stopped.set()
        self._child.end()

    def _start(self) -> None:
        if self._stopped.is_set():
            raise _stopped()
        self._child.start()
        self.starts += 1


def _died(message: str) -> DiffusionSegmentError:
    return DiffusionSegmentError(ErrorCode.WORKER_DIED, message, hint=_TRY_AGAIN)


def _stopped() -> DiffusionSegmentError:
    return DiffusionSegmentError(ErrorCode.CANCELLED, "The node was stopped.")
