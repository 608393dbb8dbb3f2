"""The panel's behaviour: one button, progress, messages, the result and its overlays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError
from DiffusionSegmentBackend.protocol import Progress, Result

from ..parameters import Parameters
from ..scene.overlay import STYLES, OverlayKind, setThreshold, showOverlay
from ..scene.result import SceneResult, putResult
from ..scene.segmentation import showSurfaces
from ..scene.terminology import ModelDescription, readModelDescription
from ..scene.volumes import volumeBuffer
from ..worker.client import WorkerClient, WorkerState
from . import wording
from .result_table import fillResultTable

_RUNNING = (WorkerState.STARTING, WorkerState.BUSY, WorkerState.CANCELLING)


class SegmentPanel:
    """Binds the widgets of DiffusionSegment.ui to a worker client and a scene."""

    def __init__(self, ui: Any, client: WorkerClient, modelsFolder: Path) -> None:
        self._ui = ui
        self._client = client
        self._parameters: Parameters | None = None
        self._input: slicer.vtkMRMLScalarVolumeNode | None = None
        self._model: ModelDescription | None = None
        self._result: SceneResult | None = None
        self._models = {path.parent.name: path for path in sorted(modelsFolder.glob("*/model.json"))}
        for name in self._models:
            ui.modelSelector.addItem(name)
        ui.modelSelector.currentIndexChanged.connect(self.onModelChosen)
        ui.segmentButton.clicked.connect(self.onSegmentButton)
        ui.surfaceButton.clicked.connect(self.onSurfaceButton)
        client.stateChanged.connect(self._onState)
        client.progress.connect(self._onProgress)
        client.finished.connect(self._onFinished)
        client.cancelled.connect(self._onCancelled)
        client.failed.connect(self._onFailed)
        self._showProgress(None)
        self._say("")
        self.update()

    @property
    def running(self) -> bool:
        """Whether a run is under way."""
        return self._input is not None and self._client.state in _RUNNING

    def setParameters(self, parameters: Parameters | None) -> None:
        """Work on this parameter node; None while the scene is being closed."""
        self._parameters = parameters
        self.update()

    def onModelChosen(self, index: int) -> None:
        """Remember the model; its list is not known before run time, so no connector of the parameter node fits."""
        if self._parameters is not None and index >= 0:
            self._parameters.model = list(self._models)[index]

    def update(self) -> None:
        """Bring button and overlay to what parameters and worker say."""
        button, parameters = self._ui.segmentButton, self._parameters
        if parameters is not None and parameters.model in self._models:
            self._ui.modelSelector.currentIndex = list(self._models).index(parameters.model)
        if self.running:
            cancelling = self._client.state is WorkerState.CANCELLING
            button.text = wording.CANCELLING if cancelling else wording.CANCEL
            button.enabled = not cancelling
            button.toolTip = wording.RUNNING
            return
        missing = wording.NO_INPUT if parameters is None or parameters.inputVolume is None else ""
        missing = missing or ("" if self._models else wording.NO_MODEL)
        button.text = wording.SEGMENT
        button.enabled = not missing
        button.toolTip = missing or wording.READY
        self._ui.surfaceButton.enabled = self._result is not None

    def onSegmentButton(self) -> None:
        """Start a run, or cancel the one under way."""
        if self.running:
            self._client.cancel()
            return
        self._say("")
        try:
            self._start()
        except DiffusionSegmentError as error:
            self._input = None
            self._fail(error)
        self.update()

    def _start(self) -> None:
        parameters = self._parameters
        if parameters is None or parameters.inputVolume is None:
            return
        self._model = readModelDescription(self._models[parameters.model])
        array, geometry = volumeBuffer(parameters.inputVolume)
        self._input = parameters.inputVolume
        self._showProgress(wording.STARTING)
        self._client.segment(
            array,
            geometry,
            model=parameters.model,
            samples=parameters.samples or None,
            steps=parameters.steps or None,
            seed=parameters.seed,
            device=parameters.device.value,
            bodypart=parameters.bodypart,
            force=parameters.force,
        )

    def onSurfaceButton(self) -> None:
        """Show the organs as surfaces in the 3D views."""
        if self._result is not None:
            showSurfaces(self._result.segmentation)

    def onOverlayChanged(self) -> None:
        """Show the overlay that the parameter node names, with its opacity and threshold."""
        if self._parameters is None or self._result is None:
            return
        kind = self._parameters.overlay
        node = self._result.overlays.get(kind)
        if node is not None and node.GetScene() is None:
            node = None
        if node is not None and STYLES[kind].threshold is not None:
            setThreshold(node, self._parameters.threshold)
        showOverlay(slicer.mrmlScene, self._input, node, kind, opacity=self._parameters.opacity)
        if node is None and kind is not OverlayKind.NONE:
            self._say("This overlay was not made: tick body coordinates under Advanced and segment again.")

    def onSceneClosing(self) -> None:
        """Forget everything that belongs to the scene; a run under way is cancelled and its result dropped."""
        self._client.cancel()
        self._input = self._result = None
        self.setParameters(None)
        self._ui.resultTable.setRowCount(0)
        self._showProgress(None)
        self._say("")

    def onNodeRemoved(self, node: slicer.vtkMRMLNode) -> None:
        """The input of a run has left the scene: there is nothing to put its result beside."""
        if node is self._input and self.running:
            self._client.cancel()
            self._say("The input volume was removed; the run was cancelled.")

    def _onState(self, _: WorkerState) -> None:
        self.update()

    def _onProgress(self, message: Progress) -> None:
        self._showProgress(wording.STAGES.get(message.stage, message.stage), message.done, message.total)

    def _onFinished(self, result: Result) -> None:
        def put() -> None:
            if self._input is None or self._model is None or self._parameters is None:
                return
            self._result = putResult(slicer.mrmlScene, result, self._input, self._model, previous=self._result)
            self._parameters.segmentation = self._result.segmentation
            fillResultTable(self._ui.resultTable, result.report, self._model)
            self.onOverlayChanged()
            self._say(_summary(result.report))

        self._guard(put)
        self._client.release(result)
        self._showProgress(None)
        self.update()

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except DiffusionSegmentError as error:
            self._fail(error)

    def _onCancelled(self, _: str) -> None:
        self._showProgress(None)
        if not self._ui.messageLabel.text:
            self._say(wording.CANCELLED)
        self.update()

    def _onFailed(self, _: str | None, error: DiffusionSegmentError) -> None:
        self._showProgress(None)
        self._fail(error)
        self.update()

    def _fail(self, error: DiffusionSegmentError) -> None:
        self._say(f"{error.message} {error.hint}".strip(), details=f"{error}\n{self._client.log()}", failed=True)

    def _say(self, text: str, *, details: str = "", failed: bool = False) -> None:
        label = self._ui.messageLabel
        label.text = f"⚠ {text}" if failed else text
        label.toolTip = details
        label.visible = bool(text)

    def _showProgress(self, text: str | None, done: int = 0, total: int = 0) -> None:
        bar = self._ui.progressBar
        bar.visible = text is not None
        bar.maximum = total
        bar.value = done
        bar.format = f"{text}  %p %" if text and total else (text or "")
        self._ui.stageLabel.text = text or ""
        self._ui.stageLabel.visible = text is not None


def _summary(report: dict[str, Any]) -> str:
    found = sum(organ["volume_ml"] > 0 for organ in report.get("organs", []))
    lines = [f"{found} organs in {report['timings_s']['total']:.0f} s. Not for diagnosis."]
    if report.get("review"):
        lines.append(f"Look first at: {report['review'][0]['sentence']}")
    return "\n".join(lines + list(report.get("warnings", [])))
