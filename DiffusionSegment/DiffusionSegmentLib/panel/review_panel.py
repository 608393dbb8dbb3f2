"""Review of a result: the regions that may be wrong one by one, and the Segment Editor to correct them."""

from collections.abc import Callable
from typing import Any

import qt
from DiffusionSegmentBackend.schema.review_state import RegionState

from ..scene.jump import jumpToRegion
from ..scene.overlay import OverlayKind
from ..scene.region_markups import updateRegionMarkups
from ..scene.result import SceneResult
from ..scene.review import Region, ReviewList
from ..scene.segmented_scan import SegmentedScan
from ..worker.client import WorkerClient
from . import wording
from .panel_context import PanelContext, offer
from .region_table import RegionTable
from .segment_editor import SegmentEditor

_OPACITY = 0.7


class ReviewPanel:
    """Connects table and buttons of the section "Review and correct" to the regions of the shown result."""

    def __init__(self, ui: Any, client: WorkerClient, context: PanelContext) -> None:
        self._ui = ui
        self._client = client
        self._context = context
        self._review: ReviewList | None = None
        self.editor = SegmentEditor(ui.editor)
        self._table = RegionTable(ui.regionTable)
        ui.nextButton.clicked.connect(self.onNext)
        ui.previousButton.clicked.connect(self.onPrevious)
        ui.acceptButton.clicked.connect(self.onAccept)
        ui.flagButton.clicked.connect(self.onFlag)
        ui.correctButton.clicked.connect(self.onCorrect)
        ui.regionTable.cellClicked.connect(self.onRegionClicked)
        # Kept as members: PythonQt deletes a shortcut without a reference.
        self._shortcuts = [self._shortcut("N", self.onNext), self._shortcut("P", self.onPrevious)]
        self._fill()

    def _shortcut(self, key: str, handler: Callable[[], None]) -> Any:
        """A key that works in the slice views too, but not while text is typed."""
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
    def _regions(self) -> tuple[Region, ...]:
        return self._review.regions if self._review is not None else ()

    def open(self) -> None:
        """Show the review of the current result."""
        scan = self._context.scan
        self._review = None
        if scan is not None:
            self._review = ReviewList(scan.segmentation)
            updateRegionMarkups(scan, self._review)
            self.editor.edit(scan)
        self._fill()

    def close(self) -> None:
        """No result is shown."""
        self._review = None
        self.editor.close()
        self._fill()

    def _fill(self) -> None:
        if self._regions:
            self._table.fill(self._regions)
            self._table.select(self.region)
        else:
            self._table.clear()
        self.update()

    def update(self) -> None:
        """Update which buttons are enabled, and the number of reviewed regions."""
        ui, regions = self._ui, self._regions
        reason = wording.BUSY if self._client.running else wording.NO_RESULT if self._review is None else ""
        step = reason or ("" if regions else wording.NO_REGIONS)
        chosen = step or ("" if self.region is not None else wording.NO_REGION)
        for button, why, tip in (
            (ui.nextButton, step, wording.NEXT_TIP),
            (ui.previousButton, step, wording.PREVIOUS_TIP),
            (ui.acceptButton, chosen, wording.ACCEPT_TIP),
            (ui.flagButton, chosen, wording.FLAG_TIP),
            (ui.correctButton, chosen, wording.CORRECT_TIP),
        ):
            offer(button, why, tip)
        done = sum(region.state is not RegionState.OPEN for region in regions)
        reviewed = wording.REVIEWED.format(done=done, total=len(regions))
        ui.reviewLabel.text = reviewed if regions else wording.NO_REGIONS_YET

    def onNext(self) -> None:
        """Go to the next region."""
        self._go(lambda review: review.next())

    def onPrevious(self) -> None:
        """Go to the previous region."""
        self._go(lambda review: review.previous())

    def onRegionClicked(self, row: int, _: int) -> None:
        """Go to a region of the table."""
        self._go(lambda review: review.select(row))

    def _go(self, step: Callable[[ReviewList], Region | None]) -> None:
        review, scan, result = self._review, self._context.scan, self._context.result
        if review is None or scan is None or result is None or self._client.running:
            return

        def go() -> None:
            region = step(review)
            if region is not None:
                updateRegionMarkups(scan, review)
                self._show(scan, result, region)
            self._fill()

        self._context.guard(go)

    def _show(self, scan: SegmentedScan, result: SceneResult, region: Region) -> None:
        parameters = self._context.parameters
        kind = parameters.overlay if parameters is not None else OverlayKind.UNCERTAINTY
        opacity = parameters.opacity if parameters is not None else _OPACITY
        overlay = result.overlays.get(kind)
        jumpToRegion(scan, region, regions=result.regions, overlay=overlay, kind=kind, opacity=opacity)
        self._context.regionChanged()

    def onAccept(self) -> None:
        """Accept the region as it is; go to the next."""
        self._setState(RegionState.ACCEPTED)
        self.onNext()

    def onFlag(self) -> None:
        """Flag the region for a second look; go to the next."""
        self._setState(RegionState.FLAGGED)
        self.onNext()

    def onCorrect(self) -> None:
        """Open Segment Editor on the organ of the region."""
        region, scan = self.region, self._context.scan
        if region is None or scan is None:
            return
        organs = [name for name in (region.organ, region.competingOrgan) if scan.label(name) is not None]
        present = [name for name in organs if scan.segmentation.GetSegmentation().GetSegment(name) is not None]
        self._ui.editorButton.collapsed = False
        if present:
            self.editor.select(present[0])

    def _setState(self, state: RegionState) -> None:
        review, scan = self._review, self._context.scan
        if review is None or scan is None or review.current is None:
            return

        def change() -> None:
            review.setState(state)
            updateRegionMarkups(scan, review)
            self._fill()
            self._context.organStatesChanged()

        self._context.guard(change)

    @staticmethod
    def markCorrected(scan: SegmentedScan, region: Region | None) -> None:
        """A correction was applied while `region` was under review: it is corrected, where it is still in the list."""
        review = ReviewList(scan.segmentation)
        same = next((r for r in review.regions if region is not None and r.isSameAs(region)), None)
        if same is not None:
            review.markCorrected(same.number)
