"""Requests to the worker and its answers: what runs, on which scan, and which part of the panel shows the answer."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError
from DiffusionSegmentBackend.protocol.messages import Answer, Message, Presegment, Preview, Progress, Review

from ..parameters import Parameters, runOptions
from ..scene.given_segmentation import GivenSegmentation
from ..scene.preview import removePreview, showPreview
from ..scene.region_of_interest import regionOfInterest
from ..scene.sequence import FrameSource
from ..scene.terminology import ModelDescription
from ..scene.volumes import scanVersion, volumeBuffer
from ..worker.client import WorkerClient
from ..worker.signal import Signal
from ..worker.worker_state import WorkerState
from . import wording
from .panel_context import PanelContext
from .run_progress import RunProgress
from .sequence_panel import SequencePanel


@dataclass(frozen=True)
class RunInput:
    """What the last segmentation, or review of a `given` one, was requested for.

    `version` identifies the voxels of the volume, see `scanVersion`.
    """

    volume: slicer.vtkMRMLScalarVolumeNode
    model: ModelDescription
    version: int
    given: GivenSegmentation | None = None


class RunController:
    """Starts and cancels segmentations, and passes every answer of the worker on to its receiver.

    `receivers` holds a function for each class of answers. Signal: `abandoned(error | None)` when a request was
    cancelled (None) or has failed; its receivers forget what they have sent.
    """

    def __init__(self, ui: Any, client: WorkerClient, context: PanelContext) -> None:
        self.input: RunInput | None = None
        self.receivers: dict[type[Message], Callable[[Any], None]] = {}
        self.abandoned = Signal()
        self._client = client
        self._context = context
        self._progress = RunProgress(ui)
        client.stateChanged.connect(self.onState)
        client.progress.connect(self.onProgress)
        client.previewed.connect(self.onPreview)
        client.finished.connect(self.onFinished)
        client.cancelled.connect(self.onCancelled)
        client.failed.connect(self.onFailed)
        self.sequences = SequencePanel(ui, client, context, self.onFramesEnded)

    def segment(self, parameters: Parameters, model: ModelDescription, organs: tuple[str, ...] | None) -> None:
        """Request a segmentation of the input volume, or of each frame of the sequence that it shows.

        Raises:
            DiffusionSegmentError: what is wrong with the volume or the region of interest; as `WorkerClient.request`.
        """
        volume, box, frames = parameters.inputVolume, parameters.regionOfInterest, self.sequences.selected
        array, geometry = volumeBuffer(volume)
        region = regionOfInterest(box, volume) if box is not None else None
        self.input = RunInput(volume, model, scanVersion(volume))
        options = runOptions(parameters, organs=organs, region=region)
        if frames is not None:
            self._segmentFrames(frames, model, asdict(options))
            return
        self._progress.begin(wording.STARTING, kind=parameters.model)
        version, preview = self.input.version, parameters.preview
        self._client.segment(array, geometry, version=version, preview=preview, **asdict(options))

    def review(self, parameters: Parameters, model: ModelDescription, given: GivenSegmentation) -> None:
        """Request a review of a segmentation of the input volume, also where that shows a frame of a sequence.

        Raises:
            DiffusionSegmentError: as `segment`.
        """
        volume, box = parameters.inputVolume, parameters.regionOfInterest
        array, geometry = volumeBuffer(volume)
        region = regionOfInterest(box, volume) if box is not None else None
        self.input = RunInput(volume, model, scanVersion(volume), given)
        options = asdict(runOptions(parameters, organs=given.organs, region=region))
        self._progress.begin(wording.STARTING, kind=parameters.model)
        self._client.request(
            Review,
            array,
            geometry,
            version=self.input.version,
            maps={"labels": given.labels},
            segments=given.record,
            **options,
        )

    def presegment(self, parameters: Parameters, model: ModelDescription, folder: str) -> None:
        """Request a segmentation of the input volume by a model of another program; `model` is that of the panel.

        Raises:
            DiffusionSegmentError: as `segment`.
        """
        volume = parameters.inputVolume
        array, geometry = volumeBuffer(volume)
        self.input = RunInput(volume, model, scanVersion(volume))
        self._progress.begin(wording.STARTING, kind=folder)
        self._client.request(
            Presegment,
            array,
            geometry,
            version=self.input.version,
            folder=folder,
            device=parameters.device.value,
            force=parameters.force,
        )

    def _segmentFrames(self, frames: FrameSource, model: ModelDescription, options: dict[str, Any]) -> None:
        """Body coordinates are overlays on the input volume, which shows one frame: they are not requested."""
        self.sequences.start(frames, model, **{**options, "bodypart": False})

    def cancel(self) -> None:
        """Cancel the run in progress; nothing happens where there is none."""
        self._client.cancel()

    def forgetInput(self) -> None:
        """The scene closes: an answer that still arrives is dropped."""
        self.input = None

    def runsOn(self, node: slicer.vtkMRMLNode) -> bool:
        """Whether this node is the input volume of the run in progress."""
        return self._client.running and self.input is not None and node is self.input.volume

    def begin(self, text: str) -> None:
        """Show that a request is about to be sent."""
        self._progress.begin(text)

    def endProgress(self) -> None:
        """Hide the progress and remove the preview."""
        self._progress.hide()
        scene = self.input.volume.GetScene() if self.input is not None else None
        removePreview(scene if scene is not None else slicer.mrmlScene)

    def onState(self, _: WorkerState) -> None:
        """The state of the worker changed."""
        self._context.update()

    def onProgress(self, message: Progress) -> None:
        """Show the progress of the run."""
        self._progress.show(message)

    def onPreview(self, message: Preview) -> None:
        """Show a preview of the segmentation."""
        if self.input is not None:
            volume, model = self.input.volume, self.input.model
            self._context.guard(lambda: showPreview(message, volume, model))

    def onFinished(self, answer: Answer) -> None:
        """Pass an answer on to its receiver."""
        if self.sequences.running:
            return
        self._finishProgress()
        self._context.guard(lambda: self.receivers[type(answer)](answer))
        self._client.release(answer)
        self._context.update()

    def onFramesEnded(self) -> None:
        """A run over all frames ended."""
        self._finishProgress()

    def _finishProgress(self) -> None:
        self._progress.finish()
        self.endProgress()

    def onCancelled(self, _: str) -> None:
        """The run was cancelled."""
        if not self.sequences.running:
            self.abandoned.emit(None)
            self._context.update()

    def onFailed(self, _: str | None, error: DiffusionSegmentError) -> None:
        """The run failed, or the worker could not be started."""
        if not self.sequences.running:
            self.abandoned.emit(error)
            self._context.update()
