"""Every frame of a sequence, segmented one after the other by one warm worker."""

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

# What fails so will fail for the next frame too.
_HOPELESS = {
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
    """A frame without a segmentation: its number from 0, its index such as "time 2 s", and why."""

    number: int
    label: str
    error: DiffusionSegmentError


@dataclass
class SequenceOutcome:
    """What became of the frames; `sequence` is None while none is finished."""

    total: int
    sequence: slicer.vtkMRMLSequenceNode | None = None
    done: list[int] = field(default_factory=list)
    failed: list[FailedFrame] = field(default_factory=list)
    cancelled: bool = False


class SequenceRun:
    """A run over all frames. A frame that fails is noted, and the others go on; cancelling keeps what is finished.

    Signals: `begun(number)`, from 0, before each frame; `ended(SequenceOutcome)` once, in whatever way. The sequence
    `replaced`, if there is one, is used again as soon as the first frame is finished.
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
        """Begin with the first frame; `options` are fields of `protocol.Segment`, the same for every frame.

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
        """Ask for the next frame that can be asked for."""
        while self.running:
            self._number += 1
            if self.outcome.cancelled or self._number >= self.outcome.total:
                self._end()
                return
            self.begun.emit(self._number)
            # Who hears of the frame may have had enough.
            if self.outcome.cancelled:
                continue
            try:
                self._client.segment(*self.source.buffer(self._number), **self._options)
            except DiffusionSegmentError as error:
                self._note(error)
            else:
                return

    def _onFinished(self, answer: Answer) -> None:
        try:
            if isinstance(answer, Result):
                self._put(answer)
        except DiffusionSegmentError as error:
            self._note(error)
        except Exception as error:
            message = f"The answer could not be shown ({type(error).__name__})."
            self._note(DiffusionSegmentError(ErrorCode.INTERNAL, message))
        self._client.release(answer)
        self._next()

    def _put(self, result: Result) -> None:
        outcome, known = self.outcome, self.outcome.sequence
        if known is None and self._replaced is not None and self._replaced.GetScene() is not None:
            # Answers of two runs in one sequence would be taken for one.
            known = self._replaced
            emptyFrames(self.source, known)
        outcome.sequence = putFrame(self.source, self._number, result, self._model, sequence=known)
        outcome.done.append(self._number)

    def _onCancelled(self, _: str) -> None:
        self.outcome.cancelled = True
        self._end()

    def _onFailed(self, _: str | None, error: DiffusionSegmentError) -> None:
        self._note(error)
        # A worker that could not even be started is no fault of the frame; one that died starts again by itself.
        if self.running and self._client.state is WorkerState.FAILED:
            self._end()
        self._next()

    def _note(self, error: DiffusionSegmentError) -> None:
        """A frame failed; the run ends where no other could succeed."""
        label = self.source.label(self._number) if self.source.sequence.GetScene() is not None else ""
        self.outcome.failed.append(FailedFrame(self._number, label, error))
        if error.code in _HOPELESS:
            self._end()

    def _end(self) -> None:
        if not self.running:
            return
        self.running = False
        for signal, slot in self._slots:
            signal.disconnect(slot)
        self.ended.emit(self.outcome)
