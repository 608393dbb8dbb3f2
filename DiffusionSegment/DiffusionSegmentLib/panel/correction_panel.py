"""Apply corrections: edits of the segmentation become a request, and the answer updates the scene."""

from dataclasses import dataclass
from typing import Any

import slicer
from DiffusionSegmentBackend.protocol.messages import Correct, Corrected

from ..scene.correction_maps import reviewedMaps
from ..scene.corrections import AppliedCorrection, Corrections, applyCorrected, findCorrections
from ..scene.history import Snapshot, StepName, snapshot
from ..scene.overlay import OverlayKind
from ..scene.result import SceneResult
from ..scene.volumes import scanVersion, volumeBuffer
from ..worker.client import WorkerClient
from . import wording
from .panel_context import PanelContext, offer, requestOptions
from .review_panel import ReviewPanel
from .undo_panel import UndoPanel


@dataclass(frozen=True)
class PendingCorrection:
    """What was sent to the worker, and the segmentation at that moment."""

    sent: Corrections
    before: Snapshot


class CorrectionPanel:
    """Connects the button Apply corrections to the shown result."""

    def __init__(
        self, ui: Any, client: WorkerClient, context: PanelContext, review: ReviewPanel, undo: UndoPanel
    ) -> None:
        self._ui = ui
        self._client = client
        self._context = context
        self._review = review
        self._undo = undo
        self._pending: PendingCorrection | None = None
        ui.applyButton.clicked.connect(self.onApply)
        self.update()

    def update(self) -> None:
        """Update whether the button is enabled."""
        shown = self._context.scan is not None
        reason = wording.BUSY if self._client.running else "" if shown else wording.NO_RESULT
        offer(self._ui.applyButton, reason, wording.APPLY_TIP)

    def onApply(self) -> None:
        """Send the edits to the worker."""
        self._context.guard(self._apply)
        self._context.update()

    def _apply(self) -> None:
        scan, result, parameters = self._context.scan, self._context.result, self._context.parameters
        if scan is None or result is None or parameters is None:
            return
        corrections = findCorrections(scan)
        self._pending = PendingCorrection(corrections, snapshot(scan))
        array, geometry = volumeBuffer(scan.input)
        self._context.begin(wording.STARTING)
        self._client.request(
            Correct,
            array,
            geometry,
            version=scanVersion(scan.input),
            maps={"labels": corrections.labels, "scribbles": corrections.scribbles, **reviewedMaps(scan)},
            locked=corrections.locked,
            **requestOptions(scan, parameters),
        )

    def onCorrected(self, answer: Corrected) -> None:
        """Put the answer of the worker into the scene.

        Raises:
            DiffusionSegmentError: what `applyCorrected` raises; the segmentation is then unchanged.
        """
        scan, result, pending = self._context.scan, self._context.result, self._pending
        if scan is None or result is None or pending is None:
            return
        region = self._review.region
        before = pending.before.withMaps(_uncertaintyMaps(result))
        applied = applyCorrected(scan, answer, pending.sent, result)
        self._context.result = applied.result
        self._review.markCorrected(scan, region)
        self._undo.record(StepName.APPLY_CORRECTIONS, before)
        self._pending = None
        self._review.open()
        self._report(answer, applied)

    def _report(self, answer: Corrected, applied: AppliedCorrection) -> None:
        seconds = answer.report.timings_s.get("total", 0.0)
        kept = wording.KEPT_NEWER if applied.keptVoxels else ""
        self._context.say(wording.APPLIED.format(seconds=seconds) + kept)
        self._context.reportChanged(answer.report)

    def forgetRequest(self) -> None:
        """The request was cancelled or has failed; the edits are still in the segmentation."""
        self._pending = None


def _uncertaintyMaps(result: SceneResult) -> list[slicer.vtkMRMLScalarVolumeNode]:
    kinds = (OverlayKind.UNCERTAINTY, OverlayKind.MUTUAL_INFORMATION)
    nodes = [result.overlays[kind] for kind in kinds if kind in result.overlays]
    return [node for node in nodes if node.GetScene() is not None and node.GetImageData() is not None]
