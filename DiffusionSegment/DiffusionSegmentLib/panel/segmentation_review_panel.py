"""Review this segmentation: which segments are organs of the model, and the request of a review."""

from dataclasses import replace
from typing import Any

import qt
from DiffusionSegmentBackend.schema.segment_matching import CODE, GIVEN, SegmentMatch

from ..scene.given_segmentation import GivenSegment, matchGiven, readGiven, segmentNames
from ..scene.segmented_scan import SegmentedScan
from ..scene.terminology import LabelDefinition
from ..worker.client import WorkerClient
from . import wording
from .model_selector import ModelSelector
from .panel_context import PanelContext, offer
from .run_controller import RunController

_SEGMENT, _ORGAN = range(2)
_MAX_ROWS = 6


class SegmentationReviewPanel:
    """Connects the selector of a segmentation, the table of its segments and the button *Review this segmentation*.

    Segments are matched with the organs of the model when another segmentation or model is chosen, or a segment was
    added, removed or renamed; until then a choice in the table is kept.
    """

    def __init__(
        self, ui: Any, client: WorkerClient, context: PanelContext, models: ModelSelector, run: RunController
    ) -> None:
        self._ui = ui
        self._client = client
        self._context = context
        self._models = models
        self._run = run
        self._filling = False
        self._key: tuple[object, ...] | None = None
        self._labels: tuple[LabelDefinition, ...] = ()
        self._automatic: tuple[GivenSegment, ...] = ()
        self._segments: tuple[GivenSegment, ...] = ()
        self._boxes: list[Any] = []
        ui.reviewGivenButton.clicked.connect(self.onReview)
        self.update()

    def update(self) -> None:
        """Follow the chosen segmentation, the model and the state of the worker."""
        reason = wording.BUSY if self._client.running else self._missing()
        offer(self._ui.reviewGivenButton, reason, wording.REVIEW_GIVEN_TIP)
        self._context.guard(self._match)

    def _missing(self) -> str:
        """What a review still needs; empty when it can be started."""
        parameters = self._context.parameters
        chosen = parameters is not None and parameters.reviewedSegmentation is not None
        return self._models.missing() or ("" if chosen else wording.NO_GIVEN)

    def _match(self) -> None:
        """Match again, and fill the table, where segmentation, model or segments are others than before."""
        parameters, model = self._context.parameters, self._models.model
        node = parameters.reviewedSegmentation if parameters is not None else None
        shown = node is not None and model is not None
        self._ui.matchSection.visible = shown
        key = (node.GetID(), segmentNames(node), model) if node is not None and model is not None else None
        if key == self._key:
            return
        self._key, self._labels = key, model.labels if model is not None else ()
        self._automatic = self._segments = matchGiven(node, self._labels) if shown else ()
        self._fill()
        self._ui.matchSection.collapsed = all(segment.match is not None for segment in self._segments)

    def _fill(self) -> None:
        table = self._ui.matchTable
        self._filling = True
        table.setColumnCount(len(wording.MATCH_COLUMNS))
        table.setHorizontalHeaderLabels(list(wording.MATCH_COLUMNS))
        table.setRowCount(len(self._segments))
        self._boxes = []
        for row, segment in enumerate(self._segments):
            item = qt.QTableWidgetItem(segment.name)
            item.setToolTip(segment.name)
            table.setItem(row, _SEGMENT, item)
            box = self._organBox(segment)
            table.setCellWidget(row, _ORGAN, box)
            self._boxes.append(box)
        self._filling = False
        self._arrange()
        self._count()

    def _organBox(self, segment: GivenSegment) -> Any:
        box = qt.QComboBox()
        box.setSizeAdjustPolicy(qt.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(12)
        box.addItem(wording.LEFT_AS_IT_IS)
        for label in self._labels:
            box.addItem(label.title)
        names = [label.name for label in self._labels]
        box.currentIndex = 0 if segment.match is None else names.index(segment.match.organ) + 1
        box.toolTip = _reasonOf(segment.match)
        box.currentIndexChanged.connect(self.onOrganChosen)
        return box

    def _arrange(self) -> None:
        """At most some rows are visible without scrolling; a row is as high as its box."""
        table = self._ui.matchTable
        header, rows = table.horizontalHeader(), table.verticalHeader()
        for column in (_SEGMENT, _ORGAN):
            header.setSectionResizeMode(column, qt.QHeaderView.Stretch)
        height = int(self._boxes[0].property("sizeHint").height()) if self._boxes else 0
        rows.setSectionResizeMode(qt.QHeaderView.Fixed)
        rows.setDefaultSectionSize(height)
        visible = min(len(self._boxes), _MAX_ROWS) * height
        table.setFixedHeight(int(header.property("sizeHint").height() + visible + 2 * table.frameWidth))

    def _count(self) -> None:
        matched = sum(segment.match is not None for segment in self._segments)
        self._ui.matchSection.text = wording.MATCHED.format(matched=matched, total=len(self._segments))

    def onOrganChosen(self, _: object) -> None:
        """An organ was chosen for a segment.

        The argument is not used: it is an index or a text, depending on the version of Qt.
        """
        if not self._filling:
            self._segments = tuple(
                self._chosen(segment, box.currentIndex)
                for segment, box in zip(self._automatic, self._boxes, strict=True)
            )
            self._count()

    def _chosen(self, automatic: GivenSegment, index: int) -> GivenSegment:
        """A segment with the organ in its row; the reason of its match is kept where that is unchanged."""
        if index <= 0:
            return replace(automatic, match=None)
        label = self._labels[index - 1]
        if automatic.match is not None and automatic.match.organ == label.name:
            return automatic
        match = SegmentMatch(segment=automatic.name, organ=label.name, value=label.value, reason=GIVEN)
        return replace(automatic, match=match)

    def onReview(self) -> None:
        """Request a review of the chosen segmentation."""
        self._context.say("")
        self._context.guard(self._review)
        self._context.update()

    def _review(self) -> None:
        parameters, model = self._context.parameters, self._models.model
        if parameters is None or model is None or self._missing() or self._client.running:
            return
        # A segment may have been renamed since.
        self._match()
        scan = SegmentedScan(parameters.inputVolume, parameters.reviewedSegmentation, model.labels)
        self._run.review(parameters, model, readGiven(scan, self._segments))
        # Room for the result; the header states the matches.
        self._ui.matchSection.collapsed = True


def _reasonOf(match: SegmentMatch | None) -> str:
    if match is None:
        return wording.NOT_MATCHED
    return wording.MATCHED_BY_CODE if match.reason == CODE else wording.MATCHED_BY_NAME
