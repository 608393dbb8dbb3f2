"""The panel's behaviour: one button, progress, messages, the result and its overlays."""

import traceback
from collections.abc import Callable
from typing import Any

import qt
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol import (
    Answer,
    Corrected,
    Hypotheses,
    Imported,
    Message,
    Progress,
    Result,
    SelfTestReport,
    Similarity,
    Taught,
    Written,
)

from ..parameters import Parameters
from ..scene.history import Snapshot, StepName, emptySnapshot, snapshot
from ..scene.installed_models import installedModels
from ..scene.labelled_scan import LabelledScan, readReport
from ..scene.merge_policy import MergePolicy
from ..scene.overlay import STYLES, OverlayKind, setThreshold, showOverlay
from ..scene.result import SceneResult, findResult, putResult
from ..scene.segmentation import showSurfaces
from ..scene.terminology import ModelDescription
from ..scene.volumes import volumeBuffer
from ..worker.client import WorkerClient, WorkerState
from . import wording
from .alternatives_panel import AlternativesPanel
from .installation_panel import InstallationPanel
from .report_panel import ReportPanel
from .result_table import ResultTable
from .review_panel import ReviewPanel
from .similar_panel import SimilarPanel
from .teach_panel import TeachPanel


class SegmentPanel:
    """Binds the widgets of DiffusionSegment.ui to a worker client and a scene; its parts see it as their `Desk`."""

    def __init__(self, ui: Any, client: WorkerClient) -> None:
        self._ui = ui
        self._client = client
        self.parameters: Parameters | None = None
        self.scan: LabelledScan | None = None
        self._input: slicer.vtkMRMLScalarVolumeNode | None = None
        self._model: ModelDescription | None = None
        self._results: dict[str, SceneResult] = {}
        self._shownInput: slicer.vtkMRMLScalarVolumeNode | None = None
        self._shownOverlay: tuple[OverlayKind, float, float] | None = None
        self._details = ""
        self._models = installedModels()
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
        self._table = ResultTable(ui, self.guard)
        self.review = ReviewPanel(ui, client, self)
        self.alternatives = AlternativesPanel(ui, client, self, lambda: self.review.region, self.review.recorded)
        self.similar = SimilarPanel(ui, client, self, self.review.recorded)
        self.teach = TeachPanel(ui, client, self, self.onModelAdded)
        self.reporting = ReportPanel(ui, client, self)
        self.installation = InstallationPanel(ui, client, self, self.onModelAdded)
        self._answers: dict[type[Message], Callable[[Any], None]] = {
            Result: self._putResult,
            Corrected: self.review.onCorrected,
            Hypotheses: self.alternatives.onHypotheses,
            Similarity: self.similar.onAnswer,
            Taught: self.teach.onAnswer,
            Written: self.reporting.onAnswer,
            SelfTestReport: self.installation.onSelfTestReport,
            Imported: self.installation.onImported,
        }
        self._showProgress(None)
        self.say("")
        self.update()

    @property
    def result(self) -> SceneResult | None:
        """The result that table, overlay and review show."""
        return self._results.get(self._shownInput.GetID()) if self._shownInput is not None else None

    @result.setter
    def result(self, result: SceneResult | None) -> None:
        if self._shownInput is not None and result is not None:
            self._results[self._shownInput.GetID()] = result

    def setParameters(self, parameters: Parameters | None) -> None:
        """Work on this parameter node; None while the scene is being closed."""
        self.parameters = parameters
        self.guard(self._resume)
        self.update()

    def _resume(self) -> None:
        """Go on with the result that a loaded scene holds."""
        parameters = self.parameters
        if parameters is None or parameters.inputVolume is None or parameters.segmentation is None:
            return
        inputNode, segmentation = parameters.inputVolume, parameters.segmentation
        model = self._models.get(readReport(segmentation).get("provenance", {}).get("model", ""))
        if model is not None and inputNode.GetID() not in self._results:
            self._results[inputNode.GetID()] = findResult(segmentation)
            self._open(inputNode, model)

    def _open(self, inputNode: slicer.vtkMRMLScalarVolumeNode, model: ModelDescription) -> None:
        """Show the result of a scan: table, overlay, review."""
        self._shownInput = inputNode
        self._shownOverlay = None
        result = self._results[inputNode.GetID()]
        self.alternatives.close()
        self.scan = LabelledScan(inputNode, result.segmentation, model.labels)
        self.review.open()
        self.reportChanged(None)
        self.onOverlayChanged()

    def onModelChosen(self, _: object) -> None:
        """Remember the model; its list is not known before run time, so no connector of the parameter node fits.

        The argument is not used: it is an index or a text, depending on the version of Qt.
        """
        index = self._ui.modelSelector.currentIndex
        if self.parameters is not None and index >= 0:
            self.parameters.model = list(self._models)[index]

    def onModelAdded(self, name: str) -> None:
        """A new model of the user's own: list it and choose it."""
        self._models = installedModels()
        self._ui.modelSelector.clear()
        for known in self._models:
            self._ui.modelSelector.addItem(known)
        if self.parameters is not None:
            self.parameters.model = name
        self.update()

    def update(self) -> None:
        """Bring the buttons and the model to what parameters and worker say."""
        button, parameters = self._ui.segmentButton, self.parameters
        if parameters is not None and parameters.model in self._models:
            self._ui.modelSelector.currentIndex = list(self._models).index(parameters.model)
        self._ui.surfaceButton.enabled = self.result is not None
        self._ui.surfaceButton.toolTip = wording.SURFACES if self.result is not None else wording.NO_RESULT
        parts = (self.review, self.alternatives, self.similar, self.teach, self.reporting, self.installation)
        for part in parts:
            part.update()
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
        if self.parameters is None or self.parameters.inputVolume is None:
            return wording.NO_INPUT
        if self.parameters.model not in self._models:
            return wording.UNKNOWN_MODEL.format(self.parameters.model)
        return ""

    def onSegmentButton(self) -> None:
        """Start a run, or cancel the one under way."""
        if self._client.running:
            self._client.cancel()
        else:
            self.say("")
            self.guard(self._start)
        self.update()

    def _start(self) -> None:
        parameters = self.parameters
        if parameters is None or parameters.inputVolume is None:
            return
        self._model = self._models[parameters.model]
        array, geometry = volumeBuffer(parameters.inputVolume)
        self._input = parameters.inputVolume
        self.begin(wording.STARTING)
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
        if self.result is not None:
            showSurfaces(self.result.segmentation)

    def onDetailsButton(self) -> None:
        """Copy what happened, and the worker's log, for a report."""
        qt.QApplication.clipboard().setText(self._details)

    def onParametersChanged(self) -> None:
        """A setting changed, in the panel or by a script."""
        self.update()
        self.onOverlayChanged()

    def onOverlayChanged(self) -> None:
        """Follow the parameter node's overlay, opacity and threshold; other settings leave the slice views alone."""
        if self.parameters is None or self.result is None:
            return
        wanted = (self.parameters.overlay, self.parameters.opacity, self.parameters.threshold)
        if wanted != self._shownOverlay:
            self._shownOverlay = wanted
            self._showOverlay(self.result, *wanted)

    def _showOverlay(self, result: SceneResult, kind: OverlayKind, opacity: float, threshold: float) -> None:
        node = result.overlays.get(kind)
        if node is not None and node.GetScene() is None:
            node = None
        if node is not None and STYLES[kind].threshold is not None:
            setThreshold(node, threshold)
        showOverlay(slicer.mrmlScene, self._shownInput, node, kind, opacity=opacity)
        if node is None and kind is not OverlayKind.NONE:
            self.say(wording.NO_OVERLAY)

    def onSceneClosing(self) -> None:
        """Forget everything that belongs to the scene; a run under way is cancelled and its result dropped."""
        self._client.cancel()
        self.similar.close()
        self._input = None
        self._results.clear()
        self._forgetShown()
        self.setParameters(None)
        self._showProgress(None)
        self.say("")

    def onNodeRemoved(self, node: slicer.vtkMRMLNode) -> None:
        """A node is about to leave the scene: the input of a run takes the run along, an input its result's display."""
        if node is self._input and self._client.running:
            self._client.cancel()
            self.say(wording.INPUT_REMOVED)
        shown = self.result
        if shown is not None and (node is self._shownInput or node is shown.segmentation):
            self._forgetShown()
        self._results = {key: result for key, result in self._results.items() if result.segmentation is not node}
        self._results.pop(node.GetID(), None)
        self.update()

    def _forgetShown(self) -> None:
        self.alternatives.close()
        self._shownInput = self._shownOverlay = self.scan = None
        self.review.close()
        self._table.clear()

    def _onState(self, _: WorkerState) -> None:
        self.update()

    def _onProgress(self, message: Progress) -> None:
        self._showProgress(wording.STAGES.get(message.stage, message.stage), message.done, message.total)

    def begin(self, text: str) -> None:
        """A request is about to go to the worker."""
        self.say("")
        self._showProgress(text)

    def regionChanged(self) -> None:
        """Another region is under review."""
        self.alternatives.onRegionChanged()
        self.organStatesChanged()

    def organStatesChanged(self) -> None:
        """The review state of organs may have changed."""
        self.reportChanged(None)

    def reportChanged(self, report: dict[str, Any] | None) -> None:
        """The report changed; None: read it from the scene."""
        if self.scan is not None:
            told = readReport(self.scan.segmentation) if report is None else report
            self._table.fill(self.scan, told)

    def _onFinished(self, answer: Answer) -> None:
        self._showProgress(None)
        self.guard(lambda: self._answers[type(answer)](answer))
        self._client.release(answer)
        self.update()

    def _putResult(self, result: Result) -> None:
        if self._input is None or self._model is None or self.parameters is None:
            return
        # A scan's nodes are used again for the same scan alone: another scan must not overwrite its result.
        previous, policy = self._results.get(self._input.GetID()), self.parameters.mergePolicy
        before = self._before(previous) if policy is not MergePolicy.NEW else None
        put = putResult(slicer.mrmlScene, result, self._input, self._model, previous=previous, policy=policy)
        self._results[self._input.GetID()] = put
        self.parameters.segmentation = put.segmentation
        self._open(self._input, self._model)
        if self.scan is not None:
            self.review.recorded(StepName.SEGMENT, before or emptySnapshot(self.scan))
        self.say(_summary(result.report))

    def _before(self, previous: SceneResult | None) -> Snapshot | None:
        """What undo of the arriving result gives back; None where there is nothing yet."""
        if previous is None or self._input is None or self._model is None or previous.segmentation.GetScene() is None:
            return None
        return snapshot(LabelledScan(self._input, previous.segmentation, self._model.labels))

    def guard(self, action: Callable[[], None]) -> None:
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
        self.review.forgetRequest()
        self.similar.forgetRequest()
        self._showProgress(None)
        if not self._ui.messageLabel.text:
            self.say(wording.CANCELLED)
        self.update()

    def _onFailed(self, _: str | None, error: DiffusionSegmentError) -> None:
        self.review.forgetRequest()
        self.similar.forgetRequest()
        self._fail(error)
        self.update()

    def _fail(self, error: DiffusionSegmentError, trace: str = "") -> None:
        self._showProgress(None)
        text = f"⚠ {error.message} {error.hint}".strip() + f" [{error.code.value}]"
        self.say(text, details="\n".join(part for part in (str(error), trace, self._client.log()) if part))

    def say(self, text: str, *, details: str = "") -> None:
        """Show a message; `details` are what its button copies."""
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
