"""The warm process behind the panel: requests as JSON lines on stdin, answers on stdout, everything else on stderr.

One reader (the main thread) sees every message at once, a cancel too; one permanent thread does all inference, because
cuDNN keeps its plans by thread. The process leaves when stdin closes, so it never outlives the program that started it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from glob import escape
from pathlib import Path
from queue import Empty, Queue
from typing import Any, BinaryIO

from .. import __version__
from ..errors import Cancelled, DiffusionSegmentError, ErrorCode, out_of_gpu_memory, out_of_memory
from ..models.folders import installed_descriptions
from ..pipeline.progress import Progress as ReportProgress
from ..process.environment import prepare_environment
from ..process.logs import configure_logging
from ..process.standard_streams import reserve_descriptors
from ..protocol.buffers import write_buffer
from ..protocol.messages import (
    PROTOCOL_VERSION,
    Cancel,
    CancelledNotice,
    Error,
    Hello,
    Message,
    Progress,
    Task,
    buffers_of,
    encode,
)
from .answer import EngineAnswer, SendEarly
from .engine import PipelineEngine
from .message_stream import Outbox, messages_of, refuse_busy

Engine = Callable[[Any, ReportProgress, SendEarly], EngineAnswer]
_GRACE_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Worker:
    """Runs requests of one client. `engine` turns a request into an answer and sends early parts meanwhile.

    After `idle_seconds` without a run the process leaves: only its end gives all memory of a graphics card back.
    """

    def __init__(self, engine: Engine, outbox: Outbox, *, idle_seconds: float | None = None) -> None:
        self._engine = engine
        self._outbox = outbox
        self._idle_seconds = idle_seconds
        self._queue: Queue[Task | None] = Queue()
        self._current: str | None = None
        self._cancelled = threading.Event()
        self._device_lost = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="inference", daemon=True)

    def run(self, stream: BinaryIO) -> None:
        """Read messages until the stream ends or `shutdown` comes."""
        self._thread.start()
        for message in messages_of(stream, self._outbox):
            self._take(message)
        self._cancelled.set()
        self._queue.put(None)
        self._thread.join(_GRACE_SECONDS)

    def _take(self, message: Message) -> None:
        if isinstance(message, Cancel):
            with self._lock:
                if message.id == self._current:
                    self._cancelled.set()
        elif isinstance(message, Task):
            with self._lock:
                free = self._current is None
                if free:
                    self._current = message.id
                    self._cancelled.clear()
            if free:
                self._queue.put(message)
            else:
                refuse_busy(message, self._outbox)

    def _serve(self) -> None:
        while (request := self._next()) is not None:
            answer = self._answer(request)
            with self._lock:
                self._current = None
            self._outbox.send_line(answer)
            if self._device_lost:
                # Nothing on that device works any more in this process; the next request starts another.
                os._exit(0)

    def _next(self) -> Task | None:
        while True:
            try:
                return self._queue.get(timeout=self._idle_seconds)
            except Empty:
                with self._lock:
                    if self._current is None:
                        # The reader sits in a read that nothing can interrupt.
                        os._exit(0)

    def _answer(self, request: Task) -> bytes:
        """The line that ends the run, whatever happens in it: a client without one would wait for ever."""

        def progress(stage: str, done: int, total: int) -> None:
            if self._cancelled.is_set():
                raise Cancelled
            self._outbox.send(Progress(id=request.id, stage=stage, done=done, total=total))

        def send_early(answer: EngineAnswer) -> None:
            if not self._cancelled.is_set():
                self._outbox.send(write_answer(request, answer))

        answer: Message
        _log.info("%s %s", request.type, request.id)
        try:
            result = write_answer(request, self._engine(request, progress, send_early))
            progress("deliver", 1, 1)
            return encode(result)
        except Cancelled:
            _log.info("%s cancelled", request.id)
            answer = CancelledNotice(id=request.id)
        except (Exception, SystemExit) as error:
            self._device_lost = _is_device_error(error)
            failure = user_error(error)
            _log.info("%s refused: %s", request.id, failure)
            answer = Error.of(failure, request.id)
        _remove_buffers(request)
        return encode(answer)


def user_error(error: BaseException) -> DiffusionSegmentError:
    """The user's words for a failed run; what nobody foresaw is printed to the log."""
    if isinstance(error, DiffusionSegmentError):
        return error
    if isinstance(error, MemoryError):
        return out_of_memory()
    # By its name, because torch may not be there to compare with.
    if type(error).__name__ == "OutOfMemoryError":
        return out_of_gpu_memory()
    _log.error("a run failed", exc_info=error)
    if _is_device_error(error):
        return DiffusionSegmentError(
            ErrorCode.NO_DEVICE,
            "The graphics card stopped answering.",
            hint="Try again; if it happens again, choose the device cpu.",
        )
    reason = f"The run failed ({type(error).__name__})."
    return DiffusionSegmentError(ErrorCode.INTERNAL, reason, hint="The log has the details.")


def _is_device_error(error: BaseException) -> bool:
    """What torch throws when the card is lost or its context is spoilt; by its name, or in older versions its text."""
    return type(error).__name__ == "AcceleratorError" or str(error).startswith("CUDA error")


def write_answer(request: Task, answer: EngineAnswer) -> Message:
    """Write the maps of an answer into the request's folder and name them.

    Raises:
        DiffusionSegmentError: DISK_FULL or OUTPUT_UNWRITABLE.
    """
    buffers = {
        name: write_buffer(_buffer_path(request, f"{answer.message.type}-{name}"), volume.array, volume.index_to_lps)
        for name, volume in answer.maps.items()
    }
    return answer.message(id=request.id, **buffers, **answer.values)  # type: ignore[call-arg]


def _buffer_path(request: Task, name: str) -> Path:
    return Path(request.output_folder) / f"{Path(request.id).name}-{name}.raw"


def _remove_buffers(request: Task) -> None:
    given = {Path(reference.path) for reference in buffers_of(request)}
    # An id may hold what a pattern takes for a wildcard.
    for path in Path(request.output_folder).glob(f"{escape(_buffer_path(request, '').stem)}*.raw"):
        if path not in given:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def main(engine: Engine | None = None, *, idle_seconds: float | None = None, verbose: bool = False) -> None:
    """Serve on stdin and stdout, for ever or until idle for so long.

    Stray prints go to stderr, as does the log, so that stdout carries the protocol only.
    """
    reserve_descriptors()
    prepare_environment()
    configure_logging(show=True, verbose=verbose)
    outbox = Outbox(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    outbox.send(
        Hello(
            pid=os.getpid(),
            protocol=PROTOCOL_VERSION,
            version=__version__,
            device="auto",
            torch=torch_version(),
            models=tuple(installed_descriptions()),
        )
    )
    Worker(engine or PipelineEngine(), outbox, idle_seconds=idle_seconds).run(sys.stdin.buffer)
    os._exit(0)


def torch_version() -> str:
    """Version of the installed torch, without the seconds that its import takes; empty without torch."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("torch")
    except PackageNotFoundError:
        return ""
