"""A run that a script has started: a segmentation, a review, or a segmentation by a model of another program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import Cancelled, DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.messages import Answer, Presegment, Presegmented, Progress, Result, Review
from numpy.typing import NDArray

from .scene.given_segmentation import GivenSegmentation
from .scene.merge_policy import MergePolicy
from .scene.presegmentation import putPresegmentation
from .scene.result import putResult
from .scene.terminology import ModelDescription
from .scene.volumes import scanVersion, volumeBuffer
from .worker.client import WorkerClient

ProgressCallback = Callable[[str, int, int], None]


class SegmentationRun:
    """A segmentation, or the review of a `given` one, in progress; its result is put into the scene when it arrives.

    `progress` is the last progress message (stage, done, total), None before the first; `done` is True when the run has
    ended, failed or was cancelled.
    """

    def __init__(
        self,
        client: WorkerClient,
        volumeNode: slicer.vtkMRMLScalarVolumeNode,
        model: ModelDescription,
        *,
        processEvents: Callable[[], None],
        progress: ProgressCallback | None = None,
        given: GivenSegmentation | None = None,
    ) -> None:
        self.progress: Progress | None = None
        self._client = client
        self._volume = volumeNode
        self._model = model
        self._given = given
        self._version: int | None = None
        self._processEvents = processEvents
        self._callback = progress
        self.done = False
        self._segmentation: slicer.vtkMRMLSegmentationNode | None = None
        self._error: Exception | None = None
        self._slots = (
            (client.progress, self._onProgress),
            (client.finished, self._onFinished),
            (client.cancelled, self._onCancelled),
            (client.failed, self._onFailed),
        )

    def start(self, **options: Any) -> None:
        """Send the request; `options` are fields of `protocol.Segment`.

        Raises:
            DiffusionSegmentError: what is wrong with the volume, BUSY during another run, NO_TORCH.
        """
        array, geometry = volumeBuffer(self._volume)
        if self._client.running:
            raise DiffusionSegmentError(ErrorCode.BUSY, "A run is in progress.", hint="Wait for it, or cancel it.")
        # Connected before the request, because a worker that cannot be started fails within it.
        for signal, slot in self._slots:
            signal.connect(slot)
        try:
            self._version = scanVersion(self._volume)
            self._request(array, geometry, options)
        except Exception as error:
            self._end(error)
            raise

    def _request(self, array: NDArray[Any], geometry: NDArray[np.float64], options: dict[str, Any]) -> None:
        given = self._given
        if given is None:
            self._client.segment(array, geometry, version=self._version, **options)
            return
        maps, covered = {"labels": given.labels}, {"segments": given.record, "organs": given.organs}
        self._client.request(Review, array, geometry, version=self._version, maps=maps, **{**options, **covered})

    def wait(self) -> slicer.vtkMRMLSegmentationNode:
        """Process events until the run has ended; returns the segmentation node.

        Raises:
            DiffusionSegmentError: the error of the run; CANCELLED after `cancel`.
            Exception: what the progress callback raised, which cancels the run.
        """
        try:
            while not self.done:
                self._processEvents()
        except BaseException:
            # Such as KeyboardInterrupt: nothing waits for the result any more.
            self.cancel()
            raise
        if self._error is not None:
            raise self._error
        return self._segmentation

    def cancel(self) -> None:
        """Stop within one denoising step; nothing is put into the scene."""
        if not self.done:
            self._client.cancel()

    def _onProgress(self, message: Progress) -> None:
        self.progress = message
        if self._callback is None:
            return
        try:
            self._callback(message.stage, message.done, message.total)
        except Exception as error:
            # Qt would print it and continue.
            self._callback = None
            self._error = error
            self._client.cancel()

    def _onFinished(self, answer: Answer) -> None:
        failure: Exception | None = None
        try:
            if self._error is None:
                self._segmentation = self._put(answer)
        except Exception as error:
            failure = error
        self._client.release(answer)
        self._end(failure)

    def _put(self, answer: Answer) -> slicer.vtkMRMLSegmentationNode | None:
        """Put an answer into the scene."""
        if not isinstance(answer, Result):
            return None
        scene, new = self._volume.GetScene(), MergePolicy.NEW
        result = putResult(
            scene, answer, self._volume, self._model, policy=new, version=self._version, given=self._given
        )
        return result.segmentation

    def _onCancelled(self, _: str) -> None:
        self._end(Cancelled())

    def _onFailed(self, _: str | None, error: DiffusionSegmentError) -> None:
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        """End the run; `wait` raises the first `error`."""
        self._error = self._error or error
        self.done = True
        for signal, slot in self._slots:
            signal.disconnect(slot)


class PresegmentationRun(SegmentationRun):
    """A segmentation by a model of another program in progress; `start` takes fields of `protocol.Presegment`."""

    def _request(self, array: NDArray[Any], geometry: NDArray[np.float64], options: dict[str, Any]) -> None:
        self._client.request(Presegment, array, geometry, version=self._version, **options)

    def _put(self, answer: Answer) -> slicer.vtkMRMLSegmentationNode | None:
        if not isinstance(answer, Presegmented):
            return None
        return putPresegmentation(self._volume.GetScene(), answer, self._volume, self._model.labels)
