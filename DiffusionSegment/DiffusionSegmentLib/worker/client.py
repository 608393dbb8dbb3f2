"""The client of the worker process: requests, cancellation, restart after a crash. It needs no Qt."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.buffers import write_buffer
from DiffusionSegmentBackend.protocol.line_buffer import LineBuffer
from DiffusionSegmentBackend.protocol.messages import (
    ANSWERS,
    PROTOCOL_VERSION,
    Answer,
    Cancel,
    CancelledNotice,
    Error,
    Hello,
    Message,
    Preview,
    Progress,
    Request,
    Segment,
    Task,
    buffers_of,
    decode,
    encode,
)
from numpy.typing import NDArray

from .scan_file import ScanFile
from .session_folder import createSessionFolder
from .signal import Signal
from .transport_protocol import Transport, ignoreFinished, ignoreOutput
from .worker_state import WorkerEvent, WorkerState, nextState

_CLOSE_SECONDS = 1.0
_GIVE_UP_SECONDS = 0.2


class WorkerClient:
    """Client of one worker process, one request at a time.

    Signals: `stateChanged(WorkerState)`, `progress(Progress)`, `previewed(Preview)`, `finished(Answer)`,
    `cancelled(requestId)`, `failed(requestId | None, DiffusionSegmentError)`. The worker is started by the first
    request and restarted once after a crash. A worker that exited because it was idle is started by the next request.
    `prepare` is called before each request on a scan; if it raises, the request is refused and nothing is started.

    Args:
        createTransport: makes the transport of each worker process.
    """

    def __init__(self, createTransport: Callable[[], Transport]) -> None:
        self.stateChanged = Signal()
        self.progress = Signal()
        self.previewed = Signal()
        self.finished = Signal()
        self.cancelled = Signal()
        self.failed = Signal()
        self.state = WorkerState.STOPPED
        self.hello: Hello | None = None
        self.prepare: Callable[[], None] = lambda: None
        self._createTransport = createTransport
        self._transport: Transport | None = None
        self._ended: Transport | None = None
        self._lines = LineBuffer()
        self._folder: Path | None = None
        self._scans = ScanFile()
        self._request: Task | None = None
        self._counter = 0
        self._restarted = False

    @property
    def running(self) -> bool:
        """Whether a request waits for its answer."""
        return self._request is not None

    def segment(self, array: NDArray[Any], ijkToLPS: NDArray[np.float64], **options: Any) -> str:
        """Request a segmentation; see `request`. `options` are fields of `protocol.Segment`."""
        return self.request(Segment, array, ijkToLPS, **options)

    def request(
        self,
        kind: type[Request],
        array: NDArray[Any],
        ijkToLPS: NDArray[np.float64],
        *,
        version: int | None = None,
        maps: Mapping[str, NDArray[Any]] | None = None,
        placed: Mapping[str, tuple[NDArray[Any], NDArray[np.float64]]] | None = None,
        **options: Any,
    ) -> str:
        """Send a request on a volume, starting the worker if needed.

        Args:
            kind: message class of the request.
            array: voxels (k, j, i), HU for a CT.
            ijkToLPS: 4x4 matrix from (i, j, k, 1) to LPS mm.
            version: identifies these voxels; while it stays the same they are written to disk once.
            maps: fields of the request that are volumes of the same geometry.
            placed: fields that are volumes of another geometry: voxels, and 4x4 matrix as `ijkToLPS`.
            options: other fields of the request.

        Returns:
            The id of the request.

        Raises:
            DiffusionSegmentError: BUSY during another run; DISK_FULL or OUTPUT_UNWRITABLE for a buffer; what `prepare`
                raises.
        """
        self._refuseWhileBusy()
        self.prepare()
        requestId, folder = self._newRequest()
        same = {name: (values, ijkToLPS) for name, values in (maps or {}).items()}
        # Not the names of an answer's buffers: the worker reads these while it writes those.
        volumes: dict[str, Any] = {
            name: write_buffer(folder / f"{requestId}-request-{name}.raw", values, matrix)
            for name, (values, matrix) in {**same, **(placed or {})}.items()
        }
        volumes["volume"] = self._scans.put(folder, array, ijkToLPS, version=version, requestId=requestId)
        return self._submit(kind(id=requestId, output_folder=str(folder), **volumes, **options))

    def ask(self, kind: type[Task], **options: Any) -> str:
        """Send a task that needs no scan; `options` are its fields. Returns its id.

        Raises:
            DiffusionSegmentError: BUSY during another run.
        """
        self._refuseWhileBusy()
        taskId, folder = self._newRequest()
        return self._submit(kind(id=taskId, output_folder=str(folder), **options))

    def _refuseWhileBusy(self) -> None:
        if self._request is not None:
            raise DiffusionSegmentError(ErrorCode.BUSY, "A run is in progress.", hint="Cancel it or wait.")

    def _newRequest(self) -> tuple[str, Path]:
        """A new id, and the folder for the buffers of the request and its answer."""
        if self._folder is None or not self._folder.is_dir():
            # The system may have cleaned its temporary folder during a long session.
            self._folder = createSessionFolder()
        self._counter += 1
        return f"{os.getpid()}-{self._counter}", self._folder

    def _submit(self, task: Task) -> str:
        state = nextState(self.state, WorkerEvent.REQUEST)
        self._request = task
        self._restarted = False
        if state is WorkerState.BUSY:
            self._send(task)
            self._setState(state)
        elif self.state is not WorkerState.STARTING:
            self._start(WorkerEvent.REQUEST)
        return task.id

    def cancel(self) -> None:
        """Cancel the pending request; one that was not sent yet is dropped at once."""
        if self._request is None:
            return
        state = nextState(self.state, WorkerEvent.CANCEL)
        if self.state is WorkerState.BUSY:
            self._send(Cancel(id=self._request.id))
            self._setState(state)
        elif state is WorkerState.STARTING:
            self.cancelled.emit(self._forgetRequest())

    def log(self) -> str:
        """The last lines of the worker's standard error, preceded by those of the worker before it."""
        logs = [transport.log() for transport in (self._ended, self._transport) if transport is not None]
        return "\n".join(text for text in logs if text)

    def close(self) -> None:
        """End the worker: close its input, wait a second, then kill it; remove the session's files."""
        self._detach(_CLOSE_SECONDS)
        self._request = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
            self._scans = ScanFile()
        self._setState(nextState(self.state, WorkerEvent.CLOSE))

    def release(self, answer: Message) -> None:
        """Delete the buffers of an answer that has been read."""
        for reference in buffers_of(answer):
            Path(reference.path).unlink(missing_ok=True)

    def _detach(self, timeoutSeconds: float) -> None:
        """Ignore further output of the process, close its input, and kill it if it does not exit within that time."""
        transport, self._transport = self._transport, None
        if transport is None:
            return
        transport.onFinished = ignoreFinished
        transport.onOutput = ignoreOutput
        transport.closeInput()
        if not transport.waitForFinished(timeoutSeconds):
            self._killWorker(transport)
        # A reference is kept because this may run inside a signal of the process itself.
        self._ended = transport

    def _start(self, event: WorkerEvent) -> None:
        """Start a worker process because of a request or the exit of the last one."""
        self._lines = LineBuffer()
        self.hello = None
        self._setState(nextState(self.state, event))
        transport = self._createTransport()
        transport.onOutput = self._onOutput
        transport.onFinished = self._onFinished
        self._transport = transport
        transport.start()

    def _send(self, message: Message) -> None:
        if self._transport is not None:
            self._transport.write(encode(message))

    def _onOutput(self, chunk: bytes) -> None:
        transport = self._transport
        try:
            for line in self._lines.feed(chunk):
                if self._transport is not transport:
                    return
                self._receive(decode(line))
        except DiffusionSegmentError as error:
            self._giveUp(error)

    def _giveUp(self, error: DiffusionSegmentError) -> None:
        """End a worker that violates the protocol; the next request starts another."""
        self._detach(_GIVE_UP_SECONDS)
        requestId = self._forgetRequest()
        self._setState(nextState(self.state, WorkerEvent.LOSS))
        self.failed.emit(requestId, error)

    def _receive(self, message: Message) -> None:
        if isinstance(message, Hello):
            self._onHello(message)
        elif isinstance(message, Progress):
            if self._request is not None and message.id == self._request.id:
                self.progress.emit(message)
        elif isinstance(message, Preview):
            self._onPreview(message)
        elif isinstance(message, ANSWERS):
            self._onAnswer(message)
        elif isinstance(message, CancelledNotice):
            self._endRequest(message.id, lambda: self.cancelled.emit(message.id))
        elif isinstance(message, Error) and message.id is None:
            self._giveUp(message.as_exception())
        elif isinstance(message, Error):
            self._endRequest(message.id, lambda: self.failed.emit(message.id, message.as_exception()))

    def _onHello(self, message: Hello) -> None:
        self.hello = message
        if message.protocol != PROTOCOL_VERSION:
            self._giveUp(
                DiffusionSegmentError(
                    ErrorCode.PROTOCOL, "The worker belongs to another version.", hint="Restart Slicer."
                )
            )
            return
        if self._request is None:
            self._setState(nextState(self.state, WorkerEvent.HELLO))
        else:
            state = nextState(self.state, WorkerEvent.HELLO_PENDING)
            self._send(self._request)
            self._setState(state)

    def _onPreview(self, message: Preview) -> None:
        """Receivers must read the buffer during the signal: it is deleted afterwards."""
        if self._request is not None and message.id == self._request.id and self.state is WorkerState.BUSY:
            self.previewed.emit(message)
        self.release(message)

    def _onAnswer(self, message: Answer) -> None:
        if self._request is None or message.id != self._request.id:
            self.release(message)
        elif self.state is WorkerState.CANCELLING:
            # The answer was sent before the cancellation arrived.
            self.release(message)
            self._endRequest(message.id, lambda: self.cancelled.emit(message.id))
        else:
            self._endRequest(message.id, lambda: self.finished.emit(message))

    def _endRequest(self, requestId: str | None, emit: Callable[[], None]) -> None:
        if self._request is not None and requestId == self._request.id:
            state = nextState(self.state, WorkerEvent.ANSWER)
            self._forgetRequest()
            self._setState(state)
            emit()

    def _forgetRequest(self) -> str | None:
        request, self._request = self._request, None
        if request is None:
            return None
        for reference in buffers_of(request):
            if not self._scans.keeps(reference):
                Path(reference.path).unlink(missing_ok=True)
        return request.id

    def _onFinished(self, exitCode: int) -> None:
        started = self.hello is not None
        self._ended, self._transport = self._transport, None
        if exitCode == 0 and started and self._onIdleExit():
            return
        requestId = self._forgetRequest()
        if requestId is not None and self._folder is not None:
            for path in self._folder.glob(f"{requestId}-*"):
                path.unlink(missing_ok=True)
        if started and not self._restarted:
            self._restarted = True
            self._start(WorkerEvent.RESTART)
        else:
            self._setState(nextState(self.state, WorkerEvent.LOSS))
        if requestId is not None or not started:
            self.failed.emit(requestId, _exitError(exitCode, started))

    def _onIdleExit(self) -> bool:
        """The worker exited by itself; a request that was sent at that moment goes to a new one.

        Returns:
            False when the exit counts as a failure, because the request has already been sent twice.
        """
        if self._request is None:
            self._setState(nextState(self.state, WorkerEvent.IDLE_EXIT))
            return True
        if self._restarted:
            return False
        self._restarted = True
        self._start(WorkerEvent.RESTART)
        return True

    def _killWorker(self, transport: Transport) -> None:
        """Kill the process, and the worker itself where a launcher started it: its hello contains its process id."""
        transport.kill()
        if self.hello is not None:
            with contextlib.suppress(OSError):
                os.kill(self.hello.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        transport.waitForFinished(_CLOSE_SECONDS)

    def _setState(self, state: WorkerState) -> None:
        if state is not self.state:
            self.state = state
            self.stateChanged.emit(state)


def _exitError(exitCode: int, started: bool) -> DiffusionSegmentError:
    if started:
        message = f"The segmentation process stopped unexpectedly (exit status {exitCode})."
        return DiffusionSegmentError(ErrorCode.WORKER_DIED, message, hint="Click Segment once more.")
    message = f"The segmentation process could not be started (exit status {exitCode})."
    return DiffusionSegmentError(ErrorCode.WORKER_DIED, message, hint="The log says why; is PyTorch installed?")
