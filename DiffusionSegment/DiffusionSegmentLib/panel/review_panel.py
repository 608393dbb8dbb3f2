"""The reader's way through a result: regions one by one, corrections that the model hears, undo by name."""

from collections.abc import Callable
from typing import Any

import qt
import slicer
from DiffusionSegmentBackend.protocol.messages import Correct, Corrected

from ..scene.corrections import Corrections, answerBox, applyCorrected, findCorrections
from ..scene.history import History, Snapshot, StepName, snapshot
from ..scene.jump import jumpToRegion
from ..scene.labelled_scan import LabelledScan
from ..scene.overlay import OverlayKind
from ..scene.region_markups import updateRegionMarkups
from ..scene.result import SceneResult
from ..scene.review import Region, RegionState, ReviewList
from ..scene.volumes import scanVersion, volumeBuffer
from ..worker.client import WorkerClient
from . import wording
from .desk import Desk, offer, requestOptions
from .region_table import RegionTable
from .segment_editor import SegmentEditor


class ReviewPanel:
    """Binds the section "Review and correct" to the result that is on the desk."""

    def __init__(self, ui: Any, client: WorkerClient, desk: Desk) -> None:
        self._ui = ui
        self._client = client
        self._desk = desk
        self._review: ReviewList | None = None
        self._histories: dict[str, History] = {}
        self._sent: Corrections | None = None
        self._before: Snapshot | None = None
        self.editor = SegmentEditor(ui.editor)
        self._table = RegionTable(ui.regionTable)
        ui.nextButton.clicked.connect(self.onNext)
        ui.previousButton.clicked.connect(self.onPrevious)
        ui.acceptButton.clicked.connect(self.onAccept)
        ui.flagButton.clicked.connect(self.onFlag)
        ui.correctButton.clicked.connect(self.onCorrect)
        ui.applyButton.clicked.connect(self.onApply)
        ui.undoButton.clicked.connect(self.onUndo)
        ui.redoButton.clicked.connect(self.onRedo)
        ui.regionTable.cellClicked.connect(self.onRegionClicked)
        # Kept as members: PythonQt deletes a shortcut that nobody holds.
        self._shortcuts = [self._shortcut("N", self.onNext), self._shortcut("P", self.onPrevious)]
        self._fill()

    def _shortcut(self, key: str, handler: Callable[[], None]) -> Any:
        """A key that works wherever the keyboard is, in the slice views too, but not while text is typed."""
        shortcut = qt.QShortcut(self._ui.reviewButton)
        shortcut.setKey(qt.QKeySequence(key))
        shortcut.setContext(qt.Qt.ApplicationShortcut)
        shortcut.activated.connect(handler)
        return shortcut

    @property
    def region(self) -> Region | None:
        """The region under review."""
        return self._review.current if self._review is not None else None

    @property
    def history(self) -> History:
        """What can be undone on the segmentation that is on the desk."""
        scan = self._desk.scan
        return self._histories.setdefault(scan.segmentation.GetID() if scan is not None else "", History())

    def open(self) -> None:
        """Show the review of the result on the desk."""
        scan = self._desk.scan
        self._review = None
        if scan is not None:
            self._review = ReviewList(scan.segmentation)
            updateRegionMarkups(scan, self._review)
            self.editor.edit(scan)
        self._fill()

    def close(self) -> None:
        """Nothing is on the desk any more; what could be undone is forgotten where its segmentation is gone."""
        self._review = None
        self._sent = self._before = None
        self.editor.close()
        present = slicer.mrmlScene
        self._histories = {key: h for key, h in self._histories.items() if key and present.GetNodeByID(key) is not None}
        self._fill()

    def forgetHistories(self) -> None:
        """The scene closes: the next may hold a segmentation of the same id."""
        self._histories.clear()

    def _fill(self) -> None:
        regions = self._review.regions if self._review is not None else ()
        if regions:
            self._table.fill(regions)
            self._table.select(self.region)
        else:
            self._table.clear()
        self.update()

    def update(self) -> None:
        """Enable what can be done now; what cannot says why."""
        ui, busy, open_ = self._ui, self._client.running, self._review is not None
        why = wording.BUSY if busy else wording.NO_RESULT if not open_ else ""
        regions = self._review.regions if self._review is not None else ()
        step = why or ("" if regions else wording.NO_REGIONS)
        chosen = step or ("" if self.region is not None else wording.NO_REGION)
        for button, reason, tip in (
            (ui.nextButton, step, wording.NEXT_TIP),
            (ui.previousButton, step, wording.PREVIOUS_TIP),
            (ui.acceptButton, chosen, wording.ACCEPT_TIP),
            (ui.flagButton, chosen, wording.FLAG_TIP),
            (ui.correctButton, chosen, wording.CORRECT_TIP),
            (ui.applyButton, why, wording.APPLY_TIP),
        ):
            offer(button, reason, tip)
        undo, redo = (self.history.undoText, self.history.redoText) if open_ else (None, None)
        for button, text, name, nothing in (
            (ui.undoButton, undo, wording.UNDO, wording.NOTHING_TO_UNDO),
            (ui.redoButton, redo, wording.REDO, wording.NOTHING_TO_REDO),
        ):
            offer(button, why or ("" if text else nothing), text or name)
            button.text = text or name
        done = sum(region.state is not RegionState.OPEN for region in regions)
        told = wording.REVIEWED.format(done=done, total=len(regions))
        ui.reviewLabel.text = told if regions else wording.NO_REGIONS_YET

    def onNext(self) -> None:
        """Go to the next region."""
        self._go(lambda review: review.next())

    def onPrevious(self) -> None:
        """Go to the region before."""
        self._go(lambda review: review.previous())

    def onRegionClicked(self, row: int, _: int) -> None:
        """Go to a region of the table."""
        self._go(lambda review: review.select(row))

    def _go(self, step: Callable[[ReviewList], Region | None]) -> None:
        review, scan, result = self._review, self._desk.scan, self._desk.result
        if review is None or scan is None or result is None or self._client.running:
            return

        def go() -> None:
            region = step(review)
            if region is not None:
                updateRegionMarkups(scan, review)
                self._show(scan, result, region)
            self._fill()

        self._desk.guard(go)

    def _show(self, scan: LabelledScan, result: SceneResult, region: Region) -> None:
        parameters = self._desk.parameters
        kind = parameters.overlay if parameters is not None else OverlayKind.UNCERTAINTY
        jumpToRegion(
            scan,
            region,
            regions=result.regions,
            overlay=result.overlays.get(kind),
            kind=kind,
            opacity=parameters.opacity if parameters is not None else 0.7,
        )
        self._desk.regionChanged()

    def onAccept(self) -> None:
        """The region is right as it is; go on to the next."""
        self._say(RegionState.ACCEPTED)
        self.onNext()

    def onFlag(self) -> None:
        """The region needs somebody else's eyes; go on to the next."""
        self._say(RegionState.FLAGGED)
        self.onNext()

    def onCorrect(self) -> None:
        """Open the editor on the region's organ."""
        region, scan = self.region, self._desk.scan
        if region is None or scan is None:
            return
        organs = [name for name in (region.organ, region.rival) if scan.label(name) is not None]
        present = [name for name in organs if scan.segmentation.GetSegmentation().GetSegment(name) is not None]
        self._ui.editorButton.collapsed = False
        if present:
            self.editor.select(present[0])

    def _say(self, state: RegionState) -> None:
        review, scan = self._review, self._desk.scan
        if review is None or scan is None or review.current is None:
            return

        def say() -> None:
            review.setState(state)
            updateRegionMarkups(scan, review)
            self._fill()
            self._desk.organStatesChanged()

        self._desk.guard(say)

    def onApply(self) -> None:
        """Send the reader's edits to the worker."""
        self._desk.guard(self._apply)
        self._desk.update()

    def _apply(self) -> None:
        scan, result, parameters = self._desk.scan, self._desk.result, self._desk.parameters
        if scan is None or result is None or parameters is None:
            return
        found = findCorrections(scan)
        self._before = snapshot(scan)
        self._sent = found
        array, geometry = volumeBuffer(scan.input)
        self._desk.begin(wording.STARTING)
        self._client.request(
            Correct,
            array,
            geometry,
            version=scanVersion(scan.input),
            maps={"labels": found.labels, "marks": found.marks},
            locked=found.locked,
            **requestOptions(scan, parameters),
        )

    @staticmethod
    def _doubtMaps(result: SceneResult) -> list[slicer.vtkMRMLScalarVolumeNode]:
        kinds = (OverlayKind.UNCERTAINTY, OverlayKind.MUTUAL_INFORMATION)
        nodes = [result.overlays[kind] for kind in kinds if kind in result.overlays]
        return [node for node in nodes if node.GetScene() is not None]

    def onCorrected(self, answer: Corrected) -> None:
        """Put the worker's answer into the scene.

        Raises:
            DiffusionSegmentError: what `applyCorrected` raises; the segmentation is then as before.
        """
        scan, result = self._desk.scan, self._desk.result
        if scan is None or result is None or self._sent is None or self._before is None:
            return
        region = self.region
        before = self._before.withMaps(self._doubtMaps(result), answerBox(scan, answer))
        applied = applyCorrected(scan, answer, self._sent, result)
        self._desk.result = applied.result
        review = ReviewList(scan.segmentation)
        same = next((r for r in review.regions if region is not None and r.isAlso(region)), None)
        if same is not None:
            review.setState(RegionState.CORRECTED, same.number)
        self.history.record(StepName.APPLY_CORRECTIONS, scan, before)
        self._sent = self._before = None
        self.open()
        seconds = answer.report.get("timings_s", {}).get("total", 0.0)
        self._desk.say(wording.APPLIED.format(seconds=seconds) + (wording.KEPT_NEWER if applied.keptVoxels else ""))
        self._desk.reportChanged(answer.report)

    def forgetRequest(self) -> None:
        """The run was cancelled or failed: the edits are still there, and are found again."""
        self._sent = self._before = None

    def onUndo(self) -> None:
        """Take the last step back."""
        self._travel(self.history.undo)

    def onRedo(self) -> None:
        """Do again what was undone."""
        self._travel(self.history.redo)

    def _travel(self, step: Callable[[LabelledScan], StepName | None]) -> None:
        scan = self._desk.scan
        if scan is None or self._client.running:
            return

        def travel() -> None:
            step(scan)
            self.open()
            self._desk.reportChanged(None)

        self._desk.guard(travel)

    def recorded(self, name: StepName, before: Snapshot) -> None:
        """A step of another part of the panel is done."""
        scan = self._desk.scan
        if scan is not None:
            self.history.record(name, scan, before)
            self.update()
