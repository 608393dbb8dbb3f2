"""The table of regions to review: number, sentence, state, worst first."""

from collections.abc import Sequence
from typing import Any

import qt

from ..scene.review import Region, RegionState
from . import wording

_ROW_PIXELS = 22
_MOST_ROWS = 8
_COLOURS = {
    RegionState.OPEN: (255, 153, 38),
    RegionState.ACCEPTED: (77, 191, 89),
    RegionState.CORRECTED: (64, 153, 255),
    RegionState.FLAGGED: (230, 38, 51),
}


def clearRegionTable(ui: Any) -> None:
    """No regions: the table goes away."""
    ui.regionTable.setRowCount(0)
    ui.regionTable.visible = False


def fillRegionTable(ui: Any, regions: Sequence[Region]) -> None:
    """Show the regions, in as many rows as they need."""
    table = ui.regionTable
    table.setColumnCount(len(wording.REGION_COLUMNS))
    table.setHorizontalHeaderLabels(list(wording.REGION_COLUMNS))
    table.setRowCount(len(regions))
    for row, region in enumerate(regions):
        for column, text in enumerate((str(region.number + 1), region.sentence, region.state.label())):
            item = qt.QTableWidgetItem(text)
            item.setToolTip(region.sentence)
            table.setItem(row, column, item)
        table.item(row, 0).setIcon(_dot(region.state))
    header = table.horizontalHeader()
    header.setSectionResizeMode(0, qt.QHeaderView.ResizeToContents)
    header.setSectionResizeMode(1, qt.QHeaderView.Stretch)
    header.setSectionResizeMode(2, qt.QHeaderView.ResizeToContents)
    table.setFixedHeight(_ROW_PIXELS * (min(len(regions), _MOST_ROWS) + 1) + 6)
    table.visible = True


def selectRegion(ui: Any, region: Region | None) -> None:
    """Highlight the row of a region and bring it into view."""
    if region is None:
        ui.regionTable.clearSelection()
        return
    ui.regionTable.selectRow(region.number)
    ui.regionTable.scrollToItem(ui.regionTable.item(region.number, 0))


def _dot(state: RegionState) -> Any:
    pixmap = qt.QPixmap(12, 12)
    pixmap.fill(qt.QColor(*_COLOURS[state]))
    return qt.QIcon(pixmap)
