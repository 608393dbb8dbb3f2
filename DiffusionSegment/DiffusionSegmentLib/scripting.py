"""Segmentation from the Python console of Slicer or a script, with its own worker process.

logic = slicer.util.getModuleLogic("DiffusionSegment")
segmentation = logic.segment(slicer.util.getNode("CT"), samples=2)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.messages import Progress, Request, Segment

from .installation import requireInstalled
from .scene.given_segmentation import matchGiven, readGiven
from .scene.installed_models import installedModels
from .scene.segmented_scan import SegmentedScan
from .scene.sequence import findFrames
from .scene.terminology import ModelDescription
from .segmentation_run import PresegmentationRun, ProgressCallback, SegmentationRun
from .sequence_run import SequenceOutcome, SequenceRun
from .worker.client import WorkerClient

# A preview is for the panel.
_NO_OPTIONS = {item.name for item in fields(Request)} - {"device"} | {"preview"}
OPTIONS = tuple(sorted({item.name for item in fields(Segment)} - _NO_OPTIONS))


class _SequenceWait:
    """Waits for a run over all frames, and reports its progress to a callback."""

    def __init__(self, run: SequenceRun, client: WorkerClient, progress: ProgressCallback | None) -> None:
        self._run = run
        self._client = client
        self._callback = progress
        self._error: Exception | None = None
        run.begun.connect(self._onBegun)
        client.progress.connect(self._onProgress)

    def wait(self, processEvents: Callable[[], None]) -> SequenceOutcome:
        """Process events until the run has ended."""
        try:
            while self._run.running:
                processEvents()
        except BaseException:
            self._run.cancel()
            raise
        finally:
            self._client.progress.disconnect(self._onProgress)
        outcome = self._run.outcome
        if self._error is not None:
            raise self._error
        if outcome.failed and not outcome.done:
            raise outcome.failed[0].error
        return outcome

    def _onBegun(self, number: int) -> None:
        self._report("frame", number + 1, self._run.outcome.total)

    def _onProgress(self, message: Progress) -> None:
        self._report(message.stage, message.done, message.total)

    def _report(self, stage: str, done: int, total: int) -> None:
        if self._callback is None:
            return
        try:
            self._callback(stage, done, total)
        except Exception as error:
            # Qt would print it and continue.
            self._callback = None
            self._error = error
            self._run.cancel()


class Scripting:
    """The functions of the module logic for scripts; `createClient` creates their worker client at first use."""

    def __init__(self, createClient: Callable[[], WorkerClient], processEvents: Callable[[], None]) -> None:
        self._createClient = createClient
        self._processEvents = processEvents
        self._client: WorkerClient | None = None

    def segment(
        self,
        volumeNode: slicer.vtkMRMLScalarVolumeNode,
        model: str = "abdomen-ct",
        progress: ProgressCallback | None = None,
        **options: Any,
    ) -> slicer.vtkMRMLSegmentationNode:
        """Segment a volume and wait; Slicer stays responsive.

        Args:
            volumeNode: the scan.
            model: name of an installed model.
            progress: called with (stage, done, total).
            options: fields of `RunOptions`, such as samples, steps, seed, sampler, organs, region, bodypart, force,
                device, memory_limit_gb.

        Returns:
            A new segmentation node.

        Raises:
            DiffusionSegmentError: with a message in one line and the next step; MODEL_UNKNOWN, OPTION, BUSY, NO_TORCH
                among others.
        """
        return self.segmentAsync(volumeNode, model, progress, **options).wait()

    def segmentAsync(
        self,
        volumeNode: slicer.vtkMRMLScalarVolumeNode,
        model: str = "abdomen-ct",
        progress: ProgressCallback | None = None,
        **options: Any,
    ) -> SegmentationRun:
        """Start a segmentation and return at once; arguments as `segment`.

        Raises:
            DiffusionSegmentError: as `segment`, for errors before the run.
        """
        client, description, options = self._prepared(model, options)
        run = SegmentationRun(client, volumeNode, description, processEvents=self._processEvents, progress=progress)
        run.start(model=model, **options)
        return run

    def _prepared(self, model: str, options: dict[str, Any]) -> tuple[WorkerClient, ModelDescription, dict[str, Any]]:
        """The worker client, the description of the model and the checked options.

        Raises:
            DiffusionSegmentError: OPTION, MODEL_UNKNOWN.
        """
        unknown = sorted(set(options) - set(OPTIONS))
        if unknown:
            raise DiffusionSegmentError(
                ErrorCode.OPTION, f"There is no option '{unknown[0]}'.", hint=f"Options: {', '.join(OPTIONS)}."
            )
        models = installedModels()
        if model not in models:
            raise DiffusionSegmentError(
                ErrorCode.MODEL_UNKNOWN, f"There is no model '{model}'.", hint=f"Installed: {', '.join(models)}."
            )
        if self._client is None:
            self._client = self._createClient()
            self._client.prepare = requireInstalled
        if options.get("organs") is not None:
            options["organs"] = tuple(options["organs"])
        return self._client, models[model], options

    def presegment(
        self,
        volumeNode: slicer.vtkMRMLScalarVolumeNode,
        folder: str,
        model: str = "abdomen-ct",
        progress: ProgressCallback | None = None,
        *,
        limitMinutes: float = 60.0,
        device: str = "auto",
        force: bool = False,
    ) -> slicer.vtkMRMLSegmentationNode:
        """Segment a volume with a model of another program and wait; `review` takes the result.

        Args:
            volumeNode: the scan.
            folder: model folder of nnU-Net v2, or a MONAI bundle.
            model: installed model that gives colour and codes to segments with the names of its organs.
            progress: called with (stage, done, total).
            limitMinutes: after which the other program is stopped.
            device: "auto", "cpu" or "cuda".
            force: accept a scan of another modality than that of the model.

        Returns:
            A new segmentation node.

        Raises:
            DiffusionSegmentError: INPUT_MISSING for a folder without a model, PACKAGE_MISSING, MODALITY,
                PRESEGMENTER_FAILED; as `segment`.
        """
        client, description, _ = self._prepared(model, {})
        run = PresegmentationRun(client, volumeNode, description, processEvents=self._processEvents, progress=progress)
        run.start(folder=str(folder), limit_minutes=limitMinutes, device=device, force=force)
        return run.wait()

    def review(
        self,
        volumeNode: slicer.vtkMRMLScalarVolumeNode,
        segmentationNode: slicer.vtkMRMLSegmentationNode,
        model: str = "abdomen-ct",
        matches: Mapping[str, str] | None = None,
        progress: ProgressCallback | None = None,
        **options: Any,
    ) -> slicer.vtkMRMLSegmentationNode:
        """Review a segmentation of a volume from another source and wait; the segmentation does not change.

        Args:
            volumeNode: the scan.
            segmentationNode: the segmentation, on the grid of the scan. Its segments are matched with the organs of the
                model by their codes, then by their names.
            model: name of an installed model.
            matches: names of segments, and of each the organ that it is instead; an empty text leaves it as it is.
            progress: called with (stage, done, total).
            options: as for `segment`, without `organs`, which are those of the segmentation.

        Returns:
            A new segmentation node with the same voxels in the segments that are organs of the model.

        Raises:
            DiffusionSegmentError: as `segment`; INPUT_VALUES where no segment is an organ of the model, GEOMETRY for a
                segmentation of another scan.
        """
        if options.get("organs") is not None:
            raise DiffusionSegmentError(
                ErrorCode.OPTION, "A review has no option 'organs'.", hint="Leave segments out with matches={NAME: ''}."
            )
        client, description, options = self._prepared(model, options)
        segments = matchGiven(segmentationNode, description.labels, given=dict(matches or {}))
        given = readGiven(SegmentedScan(volumeNode, segmentationNode, description.labels), segments)
        run = SegmentationRun(
            client, volumeNode, description, processEvents=self._processEvents, progress=progress, given=given
        )
        run.start(model=model, **options)
        return run.wait()

    def segmentSequence(
        self,
        volumeNode: slicer.vtkMRMLScalarVolumeNode,
        model: str = "abdomen-ct",
        progress: ProgressCallback | None = None,
        **options: Any,
    ) -> SequenceOutcome:
        """Segment every frame of the sequence that a volume shows, and wait; `options` as for `segment`.

        `progress` is called with ("frame", number, total) before each frame, starting with 1, and with the stages of
        each frame. A frame that fails does not stop the others.

        Returns:
            The new sequence, and which frames failed with which error.

        Raises:
            DiffusionSegmentError: INPUT_SHAPE for a volume that is no frame of a sequence; as `segment`, for errors
                before the run, and where no frame succeeds.
            Exception: what the progress callback raised, which cancels the run; finished frames stay.
        """
        source = findFrames(volumeNode)
        if source is None:
            raise DiffusionSegmentError(
                ErrorCode.INPUT_SHAPE,
                f"{volumeNode.GetName()} shows no frame of a sequence.",
                hint="Choose the volume that the sequence browser plays.",
            )
        client, description, options = self._prepared(model, options)
        run = SequenceRun(client, source, description)
        waiter = _SequenceWait(run, client, progress)
        run.start(model=model, **options)
        return waiter.wait(self._processEvents)

    def close(self) -> None:
        """End the worker process."""
        if self._client is not None:
            self._client.close()
            self._client = None
