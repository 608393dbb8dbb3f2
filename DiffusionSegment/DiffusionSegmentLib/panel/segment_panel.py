"""The panel: its parts, and the result that they show."""

import traceback
from collections.abc import Callable
from typing import Any

import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.messages import (
    Corrected,
    FineTuned,
    Imported,
    Presegmented,
    RegionAlternatives,
    Result,
    SelfTestReport,
    Similarity,
    Written,
)
from DiffusionSegmentBackend.schema.report import Report

from ..parameters import Parameters
from ..scene.history import Snapshot, StepName, emptySnapshot, snapshot
from ..scene.merge_policy import MergePolicy
from ..scene.region_of_interest import placeAround
from ..scene.result import SceneResult, findResult, putResult
from ..scene.segmentation import showSurfaces
from ..scene.segmented_scan import SegmentedScan, readReport
from ..scene.terminology import ModelDescription
from ..worker.client import WorkerClient
from ..worker.server_choice import ServerChoice
from . import wording
from .alternatives_panel import AlternativesPanel
from .correction_panel import CorrectionPanel
from .fine_tune_panel import FineTunePanel
from .installation_panel import InstallationPanel
from .message_area import MessageArea
from .model_selector import ModelSelector
from .organ_list import OrganList
from .overlay_panel import OverlayPanel
from .panel_context import PanelPart, offer
from .presegmentation_panel import PresegmentationPanel
from .report_panel import ReportPanel
from .result_table import ResultTable
from .review_panel import ReviewPanel
from .run_controller import RunController, RunInput
from .scan_header import ScanHeader
from .scene_results import SceneResults
from .segment_button import SegmentButton
from .segmentation_review_panel import SegmentationReviewPanel
from .server_panel import ServerPanel
from .similar_panel import SimilarPanel
from .undo_panel import UndoPanel


class SegmentPanel:
    """Connects the widgets of DiffusionSegment.ui, the worker client and the scene; `PanelContext` of its parts."""

    def __init__(self, ui: Any, client: WorkerClient, server: ServerChoice) -> None:
        self._ui = ui
        self._client = client
        self.parameters: Parameters | None = None
        self.scan: SegmentedScan | None = None
        self._results = SceneResults()
        ui.regionSelector.nodeAddedByUser.connect(self.onRegionAdded)
        ui.segmentButton.clicked.connect(self.onSegmentButton)
        ui.surfaceButton.clicked.connect(self.onSurfaceButton)
        self._message = MessageArea(ui)
        self._button = SegmentButton(ui.segmentButton, client)
        self._header = ScanHeader(ui, self)
        self._models = ModelSelector(ui, self, self.onModelChosen)
        self._organs = OrganList(ui, self, self.update)
        self._overlay = OverlayPanel(self)
        self._table = ResultTable(ui, self.guard)
        self.run = RunController(ui, client, self)
        self.givenReview = SegmentationReviewPanel(ui, client, self, self._models, self.run)
        self.presegmentation = PresegmentationPanel(ui, client, self, self._models, self.run)
        self.review = ReviewPanel(ui, client, self)
        self.undo = UndoPanel(ui, client, self, self.review.open)
        self.corrections = CorrectionPanel(ui, client, self, self.review, self.undo)
        self.alternatives = AlternativesPanel(ui, client, self, self.review, self.undo.record)
        self.similar = SimilarPanel(ui, client, self, self.undo.record)
        self.fineTuning = FineTunePanel(ui, client, self, self.onModelAdded)
        self.reporting = ReportPanel(ui, client, self)
        self.installation = InstallationPanel(ui, client, self, self.onModelAdded)
        self.server = ServerPanel(ui, client, self, server)
        self._parts: tuple[PanelPart, ...] = (
            *(self.review, self.undo, self.corrections, self.alternatives, self.similar, self.fineTuning),
            *(self.reporting, self.installation, self.server, self.run.sequences, self._header, self.givenReview),
            self.presegmentation,
        )
        self.run.abandoned.connect(self.onAbandoned)
        self.run.receivers = {
            Result: self.onResult,
            Corrected: self.onCorrected,
            RegionAlternatives: self.alternatives.onAnswer,
            Presegmented: self.presegmentation.onAnswer,
            Similarity: self.similar.onAnswer,
            FineTuned: self.fineTuning.onAnswer,
            Written: self.reporting.onAnswer,
            SelfTestReport: self.installation.onSelfTestReport,
            Imported: self.installation.onImported,
        }
        self.update()

    @property
    def result(self) -> SceneResult | None:
        """The result that table, overlay and review show."""
        return self._results.shown

    @result.setter
    def result(self, result: SceneResult | None) -> None:
        if self._results.shownInput is not None and result is not None:
            self._results.put(self._results.shownInput, result)

    def setParameters(self, parameters: Parameters | None) -> None:
        """Use this parameter node; None while the scene is being closed."""
        self.parameters = parameters
        self.guard(self._showSavedResult)
        self.update()

    def _showSavedResult(self) -> None:
        """Show the result that a loaded scene contains."""
        parameters = self.parameters
        if parameters is None or parameters.inputVolume is None or parameters.segmentation is None:
            return
        inputNode, segmentation = parameters.inputVolume, parameters.segmentation
        model = self._models.models.get(readReport(segmentation).provenance.plan.model)
        if model is not None and self._results.of(inputNode) is None:
            self._showResult(inputNode, findResult(segmentation), model)

    def _showResult(
        self, inputNode: slicer.vtkMRMLScalarVolumeNode, result: SceneResult, model: ModelDescription
    ) -> None:
        """Show a result: table, overlay, review."""
        self._results.put(inputNode, result)
        self._results.shownInput = inputNode
        self._overlay.close()
        self.alternatives.close()
        self.scan = SegmentedScan(inputNode, result.segmentation, model.labels)
        self.review.open()
        self.reportChanged(None)
        self._overlay.update()

    def _hideResult(self) -> None:
        self.alternatives.close()
        self._overlay.close()
        self._results.shownInput = self.scan = None
        self.review.close()
        self.undo.dropDeleted()
        self.corrections.forgetRequest()
        self._table.clear()

    def onModelChosen(self) -> None:
        """The user chose another model, which has other organs."""
        if self.parameters is not None:
            self.parameters.organs = []
        self.update()

    def onModelAdded(self, name: str) -> None:
        """A model was installed or fine-tuned: list it and choose it."""
        self._models.reload()
        if self.parameters is not None:
            self.parameters.model = name
        self.onModelChosen()

    def onRegionAdded(self) -> None:
        """The user created a region of interest: it starts around the whole scan."""
        region = self._ui.regionSelector.currentNode()
        if region is not None and self.parameters is not None and self.parameters.inputVolume is not None:
            placeAround(region, self.parameters.inputVolume)

    def update(self) -> None:
        """Update all parts to the parameters and the state of the worker."""
        self._models.update()
        self._organs.update(self._models.model)
        offer(self._ui.surfaceButton, "" if self.result is not None else wording.NO_RESULT, wording.SURFACES)
        for part in self._parts:
            part.update()
        self._button.update(self._missing())

    def _missing(self) -> str:
        """What a run still needs; empty when it can be started."""
        if not self._models.models:
            return wording.NO_MODEL
        if self.parameters is None or self.parameters.inputVolume is None:
            return wording.NO_INPUT
        if self._models.model is None:
            return wording.UNKNOWN_MODEL.format(model=self.parameters.model)
        return wording.NO_ORGAN if self._organs.noneSelected else ""

    def onSegmentButton(self) -> None:
        """Start a run, or cancel the one in progress."""
        if self._client.running:
            self.run.cancel()
        else:
            self.say("")
            self.guard(self._segment)
        self.update()

    def _segment(self) -> None:
        parameters, model = self.parameters, self._models.model
        if parameters is not None and parameters.inputVolume is not None and model is not None:
            self.run.segment(parameters, model, self._organs.selected)

    def onResult(self, result: Result) -> None:
        """Put a new segmentation into the scene and show it.

        Raises:
            DiffusionSegmentError: what `putResult` raises.
        """
        run, parameters = self.run.input, self.parameters
        if run is None or parameters is None:
            return
        # Nodes are reused for the same input volume only: another scan must not overwrite its result.
        previous, policy = self._results.of(run.volume), parameters.mergePolicy
        if run.given is not None or _isReview(previous):
            # A review is a result of its own: nothing is merged with it, nor is it replaced.
            policy = MergePolicy.NEW
        before = _snapshotOf(previous, run) if policy is not MergePolicy.NEW else None
        sceneResult = putResult(
            run.volume.GetScene(),
            result,
            run.volume,
            run.model,
            previous=previous,
            policy=policy,
            version=run.version,
            given=run.given,
        )
        if run.given is not None:
            run.given.hideMatched()
        parameters.segmentation = sceneResult.segmentation
        self._showResult(run.volume, sceneResult, run.model)
        if self.scan is not None:
            step = StepName.SEGMENT if run.given is None else StepName.REVIEW
            self.undo.record(step, before or emptySnapshot(self.scan))
        self.say(_summary(result.report, run))
        self.alternatives.onAnswer(result)

    def onCorrected(self, answer: Corrected) -> None:
        """Put a correction into the scene.

        Raises:
            DiffusionSegmentError: what `CorrectionPanel.onCorrected` and `keepAlternatives` raise.
        """
        self.corrections.onCorrected(answer)
        self.alternatives.onAnswer(answer)

    def onSurfaceButton(self) -> None:
        """Show the organs as surfaces in the 3D views."""
        if self.result is not None:
            showSurfaces(self.result.segmentation)

    def onParametersChanged(self) -> None:
        """A setting was changed in the panel or by a script."""
        self.update()
        self._overlay.update()

    def onSceneClosing(self) -> None:
        """Forget everything that belongs to the scene; a run in progress is cancelled and its result dropped."""
        self.run.cancel()
        self.similar.close()
        self.run.forgetInput()
        self._results.clear()
        self._hideResult()
        self.undo.dropAll()
        self.setParameters(None)
        self.run.endProgress()
        self.say("")

    def onNodeRemoved(self, node: slicer.vtkMRMLNode) -> None:
        """A node is about to be removed: a run on it is cancelled, a result that needs it is hidden."""
        if self.run.runsOn(node):
            self.run.cancel()
            self.say(wording.INPUT_REMOVED)
        if self._results.isShown(node):
            self._hideResult()
        self._results.remove(node)
        self.update()

    def begin(self, text: str) -> None:
        """A request is about to be sent to the worker."""
        self.say("")
        self.run.begin(text)

    def regionChanged(self) -> None:
        """Another region is under review."""
        self.alternatives.onRegionChanged()
        self.organStatesChanged()

    def organStatesChanged(self) -> None:
        """The review state of organs may have changed."""
        self.reportChanged(None)

    def reportChanged(self, report: Report | None) -> None:
        """The report changed; None: read it from the scene."""
        if self.scan is not None:
            self._table.fill(self.scan, readReport(self.scan.segmentation) if report is None else report)

    def guard(self, action: Callable[[], object]) -> None:
        """Run what a click or a message asks for; every failure is shown in the panel."""
        try:
            action()
        except DiffusionSegmentError as error:
            self._showError(error)
        except Exception as error:
            unexpected = DiffusionSegmentError(
                ErrorCode.INTERNAL, wording.UNEXPECTED_ERROR.format(error=type(error).__name__), hint=wording.REPORT_IT
            )
            self._showError(unexpected, traceback.format_exc())

    def onAbandoned(self, error: DiffusionSegmentError | None) -> None:
        """The request was cancelled (None) or has failed."""
        self.corrections.forgetRequest()
        self.similar.forgetRequest()
        if error is not None:
            self._showError(error)
            return
        self.run.endProgress()
        if self._message.empty:
            self.say(wording.CANCELLED)

    def _showError(self, error: DiffusionSegmentError, trace: str = "") -> None:
        if not self._client.running:
            self.run.endProgress()
        self._message.showError(error, trace=trace, log=self._client.log())

    def say(self, text: str) -> None:
        """Show a message."""
        self._message.show(text)


def _snapshotOf(previous: SceneResult | None, run: RunInput) -> Snapshot | None:
    """The state that undoing the new result restores; None where there is no earlier result."""
    if previous is None or previous.segmentation.GetScene() is None:
        return None
    return snapshot(SegmentedScan(run.volume, previous.segmentation, run.model.labels))


def _isReview(result: SceneResult | None) -> bool:
    if result is None or result.segmentation.GetScene() is None:
        return False
    return readReport(result.segmentation).reviewed is not None


def _summary(report: Report, run: RunInput) -> str:
    count, seconds = sum(organ.volume_ml > 0 for organ in report.organs), report.timings_s["total"]
    lines = [wording.RUN_SUMMARY.format(organs=count, seconds=seconds)]
    if run.given is not None:
        name = run.given.node.GetName()
        lines = [wording.REVIEW_SUMMARY.format(organs=len(report.organs), name=name, seconds=seconds)]
    if report.review:
        lines.append(wording.LOOK_FIRST.format(sentence=report.review[0].sentence))
    return "\n".join(lines + list(report.warnings))
