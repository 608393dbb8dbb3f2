"""The client of the worker: states, requests, cancel, restart after a crash. No Qt; the transport is given to it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from DiffusionSegmentBackend.buffers import write_buffer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol import (
    PROTOCOL_VERSION,
    Cancel,
    CancelledNotice,
    Error,
    Hello,
    LineBuffer,
    Message,
    Progress,
    Result,
    Segment,
    decode,
    encode,
)

from .session_folder import createSessionFolder
from .signal import Signal
from .transport_protocol import Transport

_CLOSE_SECONDS = 1.0


class WorkerState(Enum):
    """Where the worker is in its life."""

    STOPPED = "Stopped"
    STARTING = "Starting"
    READY = "Ready"
    BUSY = "Busy"
    CANCELLING = "Cancelling"
    FAILED = "Failed"


class WorkerClient:
    """One worker, one request at a time.

    Signals: `stateChanged(WorkerState)`, `progress(Progress)`, `finished(Result)`, `cancelled(requestId)`,
    `failed(requestId | None, DiffusionSegmentError)`. The worker starts with the first request, and once more by itself
    after a crash.
    """

    def __init__(self, createTransport: Callable[[], Transport]) -> None:
        self.stateChanged = Signal()
        self.progress = Signal()
        self.finished = Signal()
        self.cancelled = Signal()
        self.failed = Signal()
        self.state = WorkerState.STOPPED
        self.hello: Hello | None = None
        self._createTransport = createTransport
        self._transport: Transport | None = None
        self._lines = LineBuffer()
        self._folder: Path | None = None
        self._request: Segment | None = None
        self._counter = 0
        self._restarted = False

    def segment(self, array: np.ndarray, ijkToLPS: np.ndarray, **options: Any) -> str:
        """Ask for a segmentation of `array` (k, j, i) in HU; `options` are fields of `protocol.Segment`.

        Returns the request's id.

        Raises:
            DiffusionSegmentError: BUSY during another run; DISK_FULL or OUTPUT_UNWRITABLE for the volume's buffer.
        """
        if self._request is not None:
            raise DiffusionSegmentError(ErrorCode.BUSY, "A segmentation is running.", hint="Cancel it or wait.")
        self._folder = self._folder or createSessionFolder()
        self._counter += 1
        requestId = f"{os.getpid()}-{self._counter}"
        volume = write_buffer(self._folder / f"{requestId}-volume.raw", array, ijkToLPS)
        self._request = Segment(id=requestId, volume=volume, output_folder=str(self._folder), **options)
        self._restarted = False
        if self.state is WorkerState.READY:
            self._send(self._request)
            self._setState(WorkerState.BUSY)
        elif self.state in (WorkerState.STOPPED, WorkerState.FAILED):
            self._start()
        return requestId

    def cancel(self) -> None:
        """Stop the running request; one that was not sent yet is dropped at once."""
        if self._request is None:
            return
        if self.state is WorkerState.BUSY:
            self._send(Cancel(id=self._request.id))
            self._setState(WorkerState.CANCELLING)
        elif self.state is WorkerState.STARTING:
            requestId = self._forgetRequest()
            self.cancelled.emit(requestId)

    def log(self) -> str:
        """The last lines that the worker printed."""
        return self._transport.log() if self._transport is not None else ""

    def close(self) -> None:
        """End the worker: close its input, wait a second, then kill it; remove the session's files."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.onFinished = lambda _: None
            transport.onOutput = lambda _: None
            transport.closeInput()
            if not transport.waitForFinished(_CLOSE_SECONDS):
                self._killWorker(transport)
        self._request = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        self._setState(WorkerState.STOPPED)

    def release(self, result: Result) -> None:
        """Delete the buffers of a result that has been read."""
        for reference in (result.labels, result.uncertainty, result.mutual_information, result.bodypart):
            if reference is not None:
                Path(reference.path).unlink(missing_ok=True)

    def _start(self) -> None:
        self._lines = LineBuffer()
        self.hello = None
        self._setState(WorkerState.STARTING)
        transport = self._createTransport()
        transport.onOutput = self._onOutput
        transport.onFinished = self._onFinished
        self._transport = transport
        transport.start()

    def _send(self, message: Message) -> None:
        if self._transport is not None:
            self._transport.write(encode(message))

    def _onOutput(self, chunk: bytes) -> None:
        try:
            messages = [decode(line) for line in self._lines.feed(chunk)]
        except DiffusionSegmentError as error:
            self.failed.emit(self._forgetRequest(), error)
            return
        for message in messages:
            self._receive(message)

    def _receive(self, message: Message) -> None:
        if isinstance(message, Hello):
            self._onHello(message)
        elif isinstance(message, Progress):
            if self._request is not None and message.id == self._request.id:
                self.progress.emit(message)
        elif isinstance(message, Result):
            self._onResult(message)
        elif isinstance(message, CancelledNotice):
            self._endRequest(message.id, lambda: self.cancelled.emit(message.id))
        elif isinstance(message, Error):
            error = DiffusionSegmentError(ErrorCode(message.code), message.message, hint=message.hint)
            self._endRequest(message.id, lambda: self.failed.emit(message.id, error))

    def _onHello(self, message: Hello) -> None:
        self.hello = message
        if message.protocol != PROTOCOL_VERSION:
            error = DiffusionSegmentError(
                ErrorCode.PROTOCOL, "The worker belongs to another version.", hint="Restart Slicer."
            )
            self.failed.emit(self._forgetRequest(), error)
            return
        if self._request is None:
            self._setState(WorkerState.READY)
        else:
            self._send(self._request)
            self._setState(WorkerState.BUSY)

    def _onResult(self, message: Result) -> None:
        if self._request is None or message.id != self._request.id:
            self.release(message)
            return
        self._endRequest(message.id, lambda: self.finished.emit(message))

    def _endRequest(self, requestId: str | None, tell: Callable[[], None]) -> None:
        if self._request is not None and requestId == self._request.id:
            self._forgetRequest()
            self._setState(WorkerState.READY)
            tell()

    def _forgetRequest(self) -> str | None:
        request, self._request = self._request, None
        if request is None:
            return None
        Path(request.volume.path).unlink(missing_ok=True)
        return request.id

    def _onFinished(self, exitCode: int) -> None:
        started, requestId = self.hello is not None, self._forgetRequest()
        self._transport = None if started else self._transport
        if started and not self._restarted:
            self._restarted = True
            self._start()
        else:
            self._setState(WorkerState.FAILED)
        if requestId is not None or not started:
            self.failed.emit(requestId, _diedError(exitCode, started))

    def _killWorker(self, transport: Transport) -> None:
        """A launcher may stand between us and the real process, whose pid only its hello tells."""
        transport.kill()
        if self.hello is not None:
            with contextlib.suppress(OSError):
                os.kill(self.hello.pid, getattr(signal, "SIGKILL", signal.SIGTERM))

    def _setState(self, state: WorkerState) -> None:
        if state is not self.state:
            self.state = state
            self.stateChanged.emit(state)


def _diedError(exitCode: int, started: bool) -> DiffusionSegmentError:
    if started:
        message = f"The segmentation process stopped unexpectedly (exit status {exitCode})."
        return DiffusionSegmentError(ErrorCode.WORKER_DIED, message, hint="Click Segment once more.")
    message = f"The segmentation process could not be started (exit status {exitCode})."
    return DiffusionSegmentError(ErrorCode.WORKER_DIED, message, hint="The log says why; is PyTorch installed?")
