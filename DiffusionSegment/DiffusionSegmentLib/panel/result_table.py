"""The table of organs: visibility, colour, name, volume with its interval, confidence, review state, lock."""

from collections.abc import Callable
from typing import Any

import qt
import slicer
from DiffusionSegmentBackend.schema.report import OrganResult, Report

from ..scene.merge_policy import isLocked, setLocked
from ..scene.segmented_scan import SegmentedScan
from . import wording
from .check_box_frames import frameCheckBoxes
from .table_fit import TableFit

_VISIBLE, _VOLUME, _INTERVAL, _CONFIDENCE, _REVIEW, _LOCK = range(6)
_MAX_ROWS = 14


class ResultTable:
    """Fills the table, and applies its check boxes to the segmentation; `guard` runs the change."""

    def __init__(self, ui: Any, guard: Callable[[Callable[[], object]], None]) -> None:
        self._ui = ui
        self._guard = guard
        self._scan: SegmentedScan | None = None
        self._names: list[str] = []
        self._filling = False
        frameCheckBoxes(ui.resultTable)
        optional = (_INTERVAL, _CONFIDENCE, _LOCK, _REVIEW)
        self._fit = TableFit(ui.resultTable, stretched=_VISIBLE, optional=optional, maxRows=_MAX_ROWS)
        ui.resultTable.cellChanged.connect(self.onCellChanged)
        self.clear()

    def clear(self) -> None:
        """No result: show a label instead of the table."""
        self._scan, self._names = None, []
        self._ui.resultTable.setRowCount(0)
        self._ui.resultTable.visible = False
        self._ui.emptyLabel.visible = True

    def fill(self, scan: SegmentedScan, report: Report) -> None:
        """Show the organs of the report that have voxels, in the order of the model."""
        organs = [organ for organ in report.organs if organ.volume_ml > 0]
        self._scan, self._names = scan, [organ.name for organ in organs]
        table = self._ui.resultTable
        self._filling = True
        table.setColumnCount(len(wording.ORGAN_COLUMNS))
        table.setHorizontalHeaderLabels(list(wording.ORGAN_COLUMNS))
        for column, tip in enumerate(wording.ORGAN_COLUMN_TIPS):
            table.horizontalHeaderItem(column).setToolTip(tip)
        table.setRowCount(len(organs))
        for row, organ in enumerate(organs):
            self._fillRow(row, organ, scan)
        self._filling = False
        self._fit.fit()
        table.visible = bool(organs)
        self._ui.emptyLabel.visible = not organs

    def _fillRow(self, row: int, organ: OrganResult, scan: SegmentedScan) -> None:
        table = self._ui.resultTable
        low, high = organ.volume_interval_ml
        volume = _millilitres(organ.volume_ml)
        interval = wording.INTERVAL.format(low=_millilitres(low), high=_millilitres(high))
        confidence = f"{100 * organ.confidence:.0f} %"
        texts = (organ.title, volume, interval, confidence, _reviewed(scan, organ.name), "")
        # The tool tip also shows the columns that are hidden in a narrow panel.
        tip = wording.ORGAN_TIP.format(organ=organ.title, volume=volume, interval=interval, confidence=confidence)
        tip += _marginTip(organ)
        for column, text in enumerate(texts):
            item = qt.QTableWidgetItem(text)
            item.setToolTip(tip)
            if column in (_VOLUME, _INTERVAL, _CONFIDENCE):
                item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            table.setItem(row, column, item)
        label = scan.label(organ.name)
        if label is not None:
            table.item(row, _VISIBLE).setIcon(_swatch(label.colour))
        table.item(row, _VISIBLE).setCheckState(_checkState(_isVisible(scan, organ.name)))
        table.item(row, _LOCK).setCheckState(_checkState(isLocked(scan.segmentation, organ.name)))

    def onCellChanged(self, row: int, column: int) -> None:
        """A check box was changed: visibility or lock."""
        scan = self._scan
        if self._filling or scan is None or column not in (_VISIBLE, _LOCK) or not 0 <= row < len(self._names):
            return
        name = self._names[row]
        checked = self._ui.resultTable.item(row, column).checkState() == qt.Qt.Checked
        if column == _LOCK:
            self._guard(lambda: setLocked(scan.segmentation, name, checked))
        else:
            self._guard(lambda: scan.segmentation.GetDisplayNode().SetSegmentVisibility(name, checked))


def _isVisible(scan: SegmentedScan, name: str) -> bool:
    display = scan.segmentation.GetDisplayNode()
    return display is not None and bool(display.GetSegmentVisibility(name))


def _reviewed(scan: SegmentedScan, name: str) -> str:
    """The review state of the organ, empty while it was not reviewed."""
    segment = scan.segmentation.GetSegmentation().GetSegment(name)
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    if segment is None:
        return ""
    states = {logic.InProgress: wording.BEGUN, logic.Completed: wording.DONE, logic.Flagged: wording.FLAGGED}
    return states.get(logic.GetSegmentStatus(segment), "")


def _checkState(value: bool) -> Any:
    return qt.Qt.Checked if value else qt.Qt.Unchecked


def _marginTip(organ: OrganResult) -> str:
    """A line of the tool tip about the margin of an organ, empty without one."""
    margin = organ.margin
    if margin is None:
        return ""
    return "\n" + wording.MARGIN_TIP.format(
        contained=f"{100 * margin.contained:.0f}",
        mm=f"{margin.mm:.0f}",
        coverage=f"{100 * margin.coverage:.0f}",
        scans=margin.scans,
        missed=margin.missed,
    )


def _millilitres(volume: float) -> str:
    return f"{volume:.0f}" if volume >= 10 else f"{volume:.1f}"


def _swatch(colour: tuple[float, float, float]) -> Any:
    pixmap = qt.QPixmap(12, 12)
    pixmap.fill(qt.QColor(*(round(255 * channel) for channel in colour)))
    return qt.QIcon(pixmap)
