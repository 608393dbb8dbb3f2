"""The panel's behaviour: one button, progress, messages, the result and its overlays."""

import traceback
from collections.abc import Callable
from typing import Any

import qt
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.messages import (
    Answer,
    Corrected,
    Hypotheses,
    Imported,
    Message,
    Preview,
    Progress,
    Result,
    SelfTestReport,
    Similarity,
    Taught,
    Written,
)

from ..parameters import Parameters
from ..scene.history import Snapshot, StepName, emptySnapshot, snapshot
from ..scene.labelled_scan import LabelledScan, readReport
from ..scene.merge_policy import MergePolicy
from ..scene.preview import removePreview, showPreview
from ..scene.region_of_interest import placeAround, regionOfInterest
from ..scene.result import SceneResult, findResult, putResult
from ..scene.segmentation import showSurfaces
from ..scene.terminology import ModelDescription
from ..scene.volumes import scanVersion, volumeBuffer
from ..worker.client import WorkerClient
from ..worker.worker_state import WorkerState
from . import wording
from .alternatives_panel import AlternativesPanel
from .desk import offer
from .installation_panel import InstallationPanel
from .model_selector import ModelSelector
from .organ_list import OrganList
from .overlay_panel import OverlayPanel
from .report_panel import ReportPanel
from .result_table import ResultTable
from .review_panel import ReviewPanel
from .run_progress import RunProgress
from .scan_header import ScanHeader
from .sequence_panel import SequencePanel
from .similar_panel import SimilarPanel
from .teach_panel import TeachPanel

# Refusals that the reader can overrule.
_OVERRULED = (ErrorCode.MODALITY, ErrorCode.BODY_PART_MISMATCH, ErrorCode.UNUSUAL_APPEARANCE)


class SegmentPanel:
    """Binds the widgets of DiffusionSegment.ui to a worker client and a scene; its parts see it as their `Desk`."""

    def __init__(self, ui: Any, client: WorkerClient) -> None:
        self._ui = ui
        self._client = client
        self.parameters: Parameters | None = None
        self.scan: LabelledScan | None = None
        self._input: slicer.vtkMRMLScalarVolumeNode | None = None
        self._model: ModelDescription | None = None
        self._version: int | None = None
        self._results: dict[str, SceneResult] = {}
        self._shownInput: slicer.vtkMRMLScalarVolumeNode | None = None
        self._details = ""
        ui.regionSelector.nodeAddedByUser.connect(self.onRegionAdded)
        ui.segmentButton.clicked.connect(self.onSegmentButton)
        ui.surfaceButton.clicked.connect(self.onSurfaceButton)
        ui.detailsButton.clicked.connect(self.onDetailsButton)
        client.stateChanged.connect(self._onState)
        client.progress.connect(self._onProgress)
        client.previewed.connect(self._onPreview)
        client.finished.connect(self._onFinished)
        client.cancelled.connect(self._onCancelled)
        client.failed.connect(self._onFailed)
        self._progress = RunProgress(ui)
        self._header = ScanHeader(ui, self)
        self._models = ModelSelector(ui, self, self.onModelChosen)
        self._organs = OrganList(ui, self, self.update)
        self._overlay = OverlayPanel(self)
        self._table = ResultTable(ui, self.guard)
        self.review = ReviewPanel(ui, client, self)
        self.alternatives = AlternativesPanel(ui, client, self, lambda: self.review.region, self.review.recorded)
        self.similar = SimilarPanel(ui, client, self, self.review.recorded)
        self.teach = TeachPanel(ui, client, self, self.onModelAdded)
        self.reporting = ReportPanel(ui, client, self)
        self.installation = InstallationPanel(ui, client, self, self.onModelAdded)
        self.sequences = SequencePanel(ui, client, self, self._onFramesEnded)
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
        model = self._models.models.get(readReport(segmentation).get("provenance", {}).get("model", ""))
        if model is not None and inputNode.GetID() not in self._results:
            self._results[inputNode.GetID()] = findResult(segmentation)
            self._open(inputNode, model)

    def _open(self, inputNode: slicer.vtkMRMLScalarVolumeNode, model: ModelDescription) -> None:
        """Show the result of a scan: table, overlay, review."""
        self._shownInput = inputNode
        self._overlay.close()
        result = self._results[inputNode.GetID()]
        self.alternatives.close()
        self.scan = LabelledScan(inputNode, result.segmentation, model.labels)
        self.review.open()
        self.reportChanged(None)
        self._overlay.update()

    def onModelChosen(self) -> None:
        """The reader chose another model, whose organs are others."""
        if self.parameters is not None:
            self.parameters.organs = []
        self.update()

    def onRegionAdded(self) -> None:
        """The reader made a new box: it begins around the whole scan."""
        region = self._ui.regionSelector.currentNode()
        if region is not None and self.parameters is not None and self.parameters.inputVolume is not None:
            placeAround(region, self.parameters.inputVolume)

    def onModelAdded(self, name: str) -> None:
        """A new model of the user's own: list it and choose it."""
        self._models.reload()
        if self.parameters is not None:
            self.parameters.model = name
        self.onModelChosen()

    def update(self) -> None:
        """Bring the buttons and the model to what parameters and worker say."""
        button = self._ui.segmentButton
        self._models.update()
        self._organs.update(self._models.model)
        offer(self._ui.surfaceButton, "" if self.result is not None else wording.NO_RESULT, wording.SURFACES)
        parts = (self.review, self.alternatives, self.similar, self.teach, self.reporting, self.installation)
        for part in (*parts, self.sequences, self._header):
            part.update()
        if self._client.running:
            cancelling = self._client.state is WorkerState.CANCELLING
            button.text = wording.CANCELLING if cancelling else wording.CANCEL
            offer(button, wording.STOPPING if cancelling else "", wording.RUNNING)
            return
        button.text = wording.SEGMENT
        offer(button, self._whatIsMissing(), wording.READY)

    def _whatIsMissing(self) -> str:
        if not self._models.models:
            return wording.NO_MODEL
        if self.parameters is None or self.parameters.inputVolume is None:
            return wording.NO_INPUT
        if self._models.model is None:
            return wording.UNKNOWN_MODEL.format(model=self.parameters.model)
        return wording.NO_ORGAN if self._organs.nothingWanted else ""

    def onSegmentButton(self) -> None:
        """Start a run, or cancel the one under way."""
        if self._client.running:
            self._client.cancel()
        else:
            self.say("")
            self.guard(self._start)
        self.update()

    def _start(self) -> None:
        parameters, model = self.parameters, self._models.model
        if parameters is None or parameters.inputVolume is None or model is None:
            return
        array, geometry = volumeBuffer(parameters.inputVolume)
        box, frames = parameters.regionOfInterest, self.sequences.wanted
        region = regionOfInterest(box, parameters.inputVolume) if box is not None else None
        self._model, self._input = model, parameters.inputVolume
        options = {
            "model": parameters.model,
            "samples": parameters.samples or None,
            "steps": parameters.steps or None,
            "seed": parameters.seed,
            "sampler": parameters.sampler.value,
            "organs": self._organs.wanted,
            "region": region,
            "device": parameters.device.value,
            "memory_limit_gb": parameters.memoryLimit or None,
            "force": parameters.force,
        }
        if frames is not None:
            self.sequences.start(frames, model, **options)
            return
        self._progress.begin(wording.STARTING, kind=parameters.model)
        options |= {"preview": parameters.preview, "bodypart": parameters.bodypart}
        self._version = scanVersion(parameters.inputVolume)
        self._client.segment(array, geometry, version=self._version, **options)

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
        self._overlay.update()

    def onSceneClosing(self) -> None:
        """Forget everything that belongs to the scene; a run under way is cancelled and its result dropped."""
        self._client.cancel()
        self.similar.close()
        self._input = None
        self._results.clear()
        self._forgetShown()
        self.review.forgetHistories()
        self.setParameters(None)
        self._endRun()
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
        self._overlay.close()
        self._shownInput = self.scan = None
        self.review.close()
        self._table.clear()

    def _onState(self, _: WorkerState) -> None:
        self.update()

    def _onProgress(self, message: Progress) -> None:
        self._progress.heard(message)

    def _onPreview(self, message: Preview) -> None:
        def show() -> None:
            if self._input is not None and self._model is not None:
                showPreview(message, self._input, self._model)

        self.guard(show)

    def _endRun(self) -> None:
        """What a run shows while it is under way goes away."""
        self._progress.hide()
        scene = self._input.GetScene() if self._input is not None else None
        removePreview(scene if scene is not None else slicer.mrmlScene)

    def begin(self, text: str) -> None:
        """A request is about to go to the worker."""
        self.say("")
        self._progress.begin(text)

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

    def _onFramesEnded(self) -> None:
        self._progress.finish()
        self._endRun()

    def _onFinished(self, answer: Answer) -> None:
        if self.sequences.running:
            return
        self._progress.finish()
        self._endRun()
        self.guard(lambda: self._answers[type(answer)](answer))
        self._client.release(answer)
        self.update()

    def _putResult(self, result: Result) -> None:
        if self._input is None or self._model is None or self.parameters is None:
            return
        # A scan's nodes are used again for the same scan alone: another scan must not overwrite its result.
        previous, policy = self._results.get(self._input.GetID()), self.parameters.mergePolicy
        before = self._before(previous) if policy is not MergePolicy.NEW else None
        scene, version = self._input.GetScene(), self._version
        put = putResult(scene, result, self._input, self._model, previous=previous, policy=policy, version=version)
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
                ErrorCode.INTERNAL, wording.UNFORESEEN.format(error=type(error).__name__), hint=wording.REPORT_IT
            )
            self._fail(told, traceback.format_exc())

    def _onCancelled(self, _: str) -> None:
        if self.sequences.running:
            return
        self.review.forgetRequest()
        self.similar.forgetRequest()
        self._endRun()
        if not self._ui.messageLabel.text:
            self.say(wording.CANCELLED)
        self.update()

    def _onFailed(self, _: str | None, error: DiffusionSegmentError) -> None:
        if self.sequences.running:
            return
        self.review.forgetRequest()
        self.similar.forgetRequest()
        self._fail(error)
        self.update()

    def _fail(self, error: DiffusionSegmentError, trace: str = "") -> None:
        if not self._client.running:
            self._endRun()
        more = wording.SEGMENT_ANYWAY if error.code in _OVERRULED else ""
        text = " ".join(part for part in ("⚠", error.message, error.hint, more, f"[{error.code.value}]") if part)
        self.say(text, details="\n".join(part for part in (str(error), trace, self._client.log()) if part))

    def say(self, text: str, *, details: str = "") -> None:
        """Show a message; `details` are what its button copies."""
        self._details = details
        self._ui.messageLabel.text = text
        self._ui.messageLabel.visible = bool(text)
        self._ui.detailsButton.visible = bool(details)


def _summary(report: dict[str, Any]) -> str:
    found = sum(organ["volume_ml"] > 0 for organ in report.get("organs", []))
    lines = [wording.FOUND.format(organs=found, seconds=report["timings_s"]["total"])]
    if report.get("review"):
        lines.append(wording.LOOK_FIRST.format(sentence=report["review"][0]["sentence"]))
    return "\n".join(lines + list(report.get("warnings", [])))
