"""The panel's behaviour: one button, progress, messages, the result and its overlays."""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol import Progress, Result

from ..parameters import Parameters
from ..scene.overlay import STYLES, OverlayKind, setThreshold, showOverlay
from ..scene.result import SceneResult, putResult
from ..scene.segmentation import showSurfaces
from ..scene.terminology import ModelDescription, readModelDescription
from ..scene.volumes import volumeBuffer
from ..worker.client import WorkerClient, WorkerState
from . import wording
from .result_table import clearResultTable, fillResultTable


class SegmentPanel:
    """Binds the widgets of DiffusionSegment.ui to a worker client and a scene."""

    def __init__(self, ui: Any, client: WorkerClient, modelsFolder: Path) -> None:
        self._ui = ui
        self._client = client
        self._parameters: Parameters | None = None
        self._input: slicer.vtkMRMLScalarVolumeNode | None = None
        self._model: ModelDescription | None = None
        self._results: dict[str, SceneResult] = {}
        self._shownInput: slicer.vtkMRMLScalarVolumeNode | None = None
        self._shownOverlay: tuple[OverlayKind, float, float] | None = None
        self._details = ""
        self._models = {
            path.parent.name: readModelDescription(path) for path in sorted(modelsFolder.glob("*/model.json"))
        }
        for name in self._models:
            ui.modelSelector.addItem(name)
        ui.modelSelector.currentIndexChanged.connect(self.onModelChosen)
        ui.segmentButton.clicked.connect(self.onSegmentButton)
        ui.surfaceButton.clicked.connect(self.onSurfaceButton)
        ui.detailsButton.clicked.connect(self.onDetailsButton)
        client.stateChanged.connect(self._onState)
        client.progress.connect(self._onProgress)
        client.finished.connect(self._onFinished)
        client.cancelled.connect(self._onCancelled)
        client.failed.connect(self._onFailed)
        clearResultTable(ui)
        self._showProgress(None)
        self._say("")
        self.update()

    @property
    def _result(self) -> SceneResult | None:
        """The result that table and overlay show."""
        return self._results.get(self._shownInput.GetID()) if self._shownInput is not None else None

    def setParameters(self, parameters: Parameters | None) -> None:
        """Work on this parameter node; None while the scene is being closed."""
        self._parameters = parameters
        self.update()

    def onModelChosen(self, _: object) -> None:
        """Remember the model; its list is not known before run time, so no connector of the parameter node fits.

        The argument is not used: it is an index or a text, depending on the version of Qt.
        """
        index = self._ui.modelSelector.currentIndex
        if self._parameters is not None and index >= 0:
            self._parameters.model = list(self._models)[index]

    def update(self) -> None:
        """Bring the buttons and the model to what parameters and worker say."""
        button, parameters = self._ui.segmentButton, self._parameters
        if parameters is not None and parameters.model in self._models:
            self._ui.modelSelector.currentIndex = list(self._models).index(parameters.model)
        self._ui.surfaceButton.enabled = self._result is not None
        self._ui.surfaceButton.toolTip = wording.SURFACES if self._result is not None else wording.NO_RESULT
        if self._client.running:
            cancelling = self._client.state is WorkerState.CANCELLING
            button.text = wording.CANCELLING if cancelling else wording.CANCEL
            button.enabled = not cancelling
            button.toolTip = wording.STOPPING if cancelling else wording.RUNNING
            return
        missing = self._whatIsMissing()
        button.text = wording.SEGMENT
        button.enabled = not missing
        button.toolTip = missing or wording.READY

    def _whatIsMissing(self) -> str:
        if not self._models:
            return wording.NO_MODEL
        if self._parameters is None or self._parameters.inputVolume is None:
            return wording.NO_INPUT
        if self._parameters.model not in self._models:
            return wording.UNKNOWN_MODEL.format(self._parameters.model)
        return ""

    def onSegmentButton(self) -> None:
        """Start a run, or cancel the one under way."""
        if self._client.running:
            self._client.cancel()
        else:
            self._say("")
            self._guard(self._start)
        self.update()

    def _start(self) -> None:
        parameters = self._parameters
        if parameters is None or parameters.inputVolume is None:
            return
        self._model = self._models[parameters.model]
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

    def onDetailsButton(self) -> None:
        """Copy what happened, and the worker's log, for a report."""
        qt.QApplication.clipboard().setText(self._details)

    def onOverlayChanged(self) -> None:
        """Follow the parameter node's overlay, opacity and threshold; other settings leave the slice views alone."""
        if self._parameters is None or self._result is None:
            return
        wanted = (self._parameters.overlay, self._parameters.opacity, self._parameters.threshold)
        if wanted != self._shownOverlay:
            self._shownOverlay = wanted
            self._showOverlay(self._result, *wanted)

    def _showOverlay(self, result: SceneResult, kind: OverlayKind, opacity: float, threshold: float) -> None:
        node = result.overlays.get(kind)
        if node is not None and node.GetScene() is None:
            node = None
        if node is not None and STYLES[kind].threshold is not None:
            setThreshold(node, threshold)
        showOverlay(slicer.mrmlScene, self._shownInput, node, kind, opacity=opacity)
        if node is None and kind is not OverlayKind.NONE:
            self._say(wording.NO_OVERLAY)

    def onSceneClosing(self) -> None:
        """Forget everything that belongs to the scene; a run under way is cancelled and its result dropped."""
        self._client.cancel()
        self._input = None
        self._results.clear()
        self._forgetShown()
        self.setParameters(None)
        self._showProgress(None)
        self._say("")

    def onNodeRemoved(self, node: slicer.vtkMRMLNode) -> None:
        """A node is about to leave the scene: the input of a run takes the run along, an input its result's display."""
        if node is self._input and self._client.running:
            self._client.cancel()
            self._say(wording.INPUT_REMOVED)
        shown = self._result
        if shown is not None and (node is self._shownInput or node is shown.segmentation):
            self._forgetShown()
        self._results = {key: result for key, result in self._results.items() if result.segmentation is not node}
        self._results.pop(node.GetID(), None)
        self.update()

    def _forgetShown(self) -> None:
        self._shownInput = self._shownOverlay = None
        clearResultTable(self._ui)

    def _onState(self, _: WorkerState) -> None:
        self.update()

    def _onProgress(self, message: Progress) -> None:
        self._showProgress(wording.STAGES.get(message.stage, message.stage), message.done, message.total)

    def _onFinished(self, result: Result) -> None:
        self._guard(lambda: self._putResult(result))
        self._client.release(result)
        self._showProgress(None)
        self.update()

    def _putResult(self, result: Result) -> None:
        if self._input is None or self._model is None or self._parameters is None:
            return
        # A scan's nodes are used again for the same scan alone: another scan must not overwrite its result.
        previous = self._results.get(self._input.GetID())
        put = putResult(slicer.mrmlScene, result, self._input, self._model, previous=previous)
        self._results[self._input.GetID()] = put
        self._shownInput = self._input
        self._shownOverlay = None
        self._parameters.segmentation = put.segmentation
        fillResultTable(self._ui, result.report, self._model)
        self.onOverlayChanged()
        self._say(_summary(result.report))

    def _guard(self, action: Callable[[], None]) -> None:
        """Run what a click or a message asks for; every failure is told, none leaves the panel half-way."""
        try:
            action()
        except DiffusionSegmentError as error:
            self._fail(error)
        except Exception as error:
            told = DiffusionSegmentError(
                ErrorCode.INTERNAL, wording.UNFORESEEN.format(type(error).__name__), hint=wording.REPORT_IT
            )
            self._fail(told, traceback.format_exc())

    def _onCancelled(self, _: str) -> None:
        self._showProgress(None)
        if not self._ui.messageLabel.text:
            self._say(wording.CANCELLED)
        self.update()

    def _onFailed(self, _: str | None, error: DiffusionSegmentError) -> None:
        self._fail(error)
        self.update()

    def _fail(self, error: DiffusionSegmentError, trace: str = "") -> None:
        self._showProgress(None)
        text = f"⚠ {error.message} {error.hint}".strip() + f" [{error.code.value}]"
        self._say(text, details="\n".join(part for part in (str(error), trace, self._client.log()) if part))

    def _say(self, text: str, *, details: str = "") -> None:
        self._details = details
        self._ui.messageLabel.text = text
        self._ui.messageLabel.visible = bool(text)
        self._ui.detailsButton.visible = bool(details)

    def _showProgress(self, text: str | None, done: int = 0, total: int = 0) -> None:
        bar = self._ui.progressBar
        bar.visible = text is not None
        bar.maximum = total
        bar.value = done
        self._ui.stageLabel.text = text or ""
        self._ui.stageLabel.visible = text is not None


def _summary(report: dict[str, Any]) -> str:
    found = sum(organ["volume_ml"] > 0 for organ in report.get("organs", []))
    lines = [f"{found} organs in {report['timings_s']['total']:.0f} s. Not for diagnosis."]
    if report.get("review"):
        lines.append(f"Look first at: {report['review'][0]['sentence']}")
    return "\n".join(lines + list(report.get("warnings", [])))
