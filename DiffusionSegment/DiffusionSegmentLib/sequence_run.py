"""Segmentation of all frames of a sequence, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.messages import Answer, Result

from .scene.sequence import FrameSource, emptyFrames, putFrame
from .scene.terminology import ModelDescription
from .worker.client import WorkerClient
from .worker.signal import Signal
from .worker.worker_state import WorkerState

# With these errors the other frames would fail too.
_FATAL = {
    ErrorCode.NO_TORCH,
    ErrorCode.PACKAGE_MISSING,
    ErrorCode.NO_DEVICE,
    ErrorCode.MODEL_UNKNOWN,
    ErrorCode.WEIGHTS_MISSING,
    ErrorCode.WEIGHTS_CORRUPT,
    ErrorCode.OPTION,
    ErrorCode.PROTOCOL,
    ErrorCode.INPUT_MISSING,
    ErrorCode.DISK_FULL,
    ErrorCode.BUSY,
}


@dataclass(frozen=True)
class FailedFrame:
    """A frame without a segmentation: its number from 0, its index such as "time 2 s", and the error."""

    number: int
    label: str
    error: DiffusionSegmentError


@dataclass
class SequenceOutcome:
    """Result of a run over frames; `sequence` is None while no frame is finished."""

    total: int
    sequence: slicer.vtkMRMLSequenceNode | None = None
    done: list[int] = field(default_factory=list)
    failed: list[FailedFrame] = field(default_factory=list)
    cancelled: bool = False


class SequenceRun:
    """A run over all frames. A frame that fails does not stop the others; cancelling keeps finished frames.

    Signals: `begun(number)`, from 0, before each frame; `ended(SequenceOutcome)` once. The sequence `replaced`, if
    given, is reused when the first frame is finished.
    """

    def __init__(
        self,
        client: WorkerClient,
        source: FrameSource,
        model: ModelDescription,
        *,
        replaced: slicer.vtkMRMLSequenceNode | None = None,
    ) -> None:
        self.begun = Signal()
        self.ended = Signal()
        self.source = source
        self.outcome = SequenceOutcome(source.count)
        self.running = False
        self._client = client
        self._model = model
        self._replaced = replaced
        self._options: dict[str, Any] = {}
        self._number = -1
        self._slots = (
            (client.finished, self._onFinished),
            (client.cancelled, self._onCancelled),
            (client.failed, self._onFailed),
        )

    def start(self, **options: Any) -> None:
        """Start with the first frame; `options` are fields of `protocol.Segment`, the same for every frame.

        Raises:
            DiffusionSegmentError: BUSY during another run; INPUT_SHAPE for a sequence without frames.
        """
        if self._client.running:
            raise DiffusionSegmentError(ErrorCode.BUSY, "A run is in progress.", hint="Wait for it, or cancel it.")
        if not self.outcome.total:
            name = self.source.sequence.GetName()
            raise DiffusionSegmentError(ErrorCode.INPUT_SHAPE, f"The sequence {name} has no frames.", hint="")
        self._options = options
        self.running = True
        for signal, slot in self._slots:
            signal.connect(slot)
        self._next()

    def cancel(self) -> None:
        """Stop within one denoising step; finished frames stay."""
        if self.running:
            self.outcome.cancelled = True
            self._client.cancel()

    def _next(self) -> None:
        """Request the next frame; frames whose request fails are skipped."""
        while self.running:
            self._number += 1
            if self.outcome.cancelled or self._number >= self.outcome.total:
                self._end()
                return
            self.begun.emit(self._number)
            # A receiver of the signal may have cancelled.
            if self.outcome.cancelled:
                continue
            try:
                self._client.segment(*self.source.buffer(self._number), **self._options)
            except DiffusionSegmentError as error:
                self._recordFailure(error)
            else:
                return

    def _onFinished(self, answer: Answer) -> None:
        try:
            if isinstance(answer, Result):
                self._put(answer)
        except DiffusionSegmentError as error:
            self._recordFailure(error)
        except Exception as error:
            message = f"The answer could not be shown ({type(error).__name__})."
            self._recordFailure(DiffusionSegmentError(ErrorCode.INTERNAL, message))
        self._client.release(answer)
        self._next()

    def _put(self, result: Result) -> None:
        outcome, sequence = self.outcome, self.outcome.sequence
        if sequence is None and self._replaced is not None and self._replaced.GetScene() is not None:
            # Results of the earlier run must not be mixed with those of this run.
            sequence = self._replaced
            emptyFrames(self.source, sequence)
        outcome.sequence = putFrame(self.source, self._number, result, self._model, sequence=sequence)
        outcome.done.append(self._number)

    def _onCancelled(self, _: str) -> None:
        self.outcome.cancelled = True
        self._end()

    def _onFailed(self, _: str | None, error: DiffusionSegmentError) -> None:
        self._recordFailure(error)
        # The worker could not be started; one that crashed restarts by itself.
        if self.running and self._client.state is WorkerState.FAILED:
            self._end()
        self._next()

    def _recordFailure(self, error: DiffusionSegmentError) -> None:
        """Record a frame that failed; the run ends where the others would fail too."""
        label = self.source.label(self._number) if self.source.sequence.GetScene() is not None else ""
        self.outcome.failed.append(FailedFrame(self._number, label, error))
        if error.code in _FATAL:
            self._end()

    def _end(self) -> None:
        if not self.running:
            return
        self.running = False
        for signal, slot in self._slots:
            signal.disconnect(slot)
        self.ended.emit(self.outcome)
