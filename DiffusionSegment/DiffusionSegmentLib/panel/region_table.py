"""The table of regions to review: number, sentence, state, worst first."""

from collections.abc import Sequence
from typing import Any

import qt
from DiffusionSegmentBackend.schema.review_state import RegionState

from ..scene.review import Region, stateLabel
from . import wording
from .table_fit import TableFit

_NUMBER, _SENTENCE, _STATE = range(3)
_MAX_ROWS = 8
_COLOURS = {
    RegionState.OPEN: (255, 153, 38),
    RegionState.ACCEPTED: (77, 191, 89),
    RegionState.CORRECTED: (64, 153, 255),
    RegionState.FLAGGED: (230, 38, 51),
}


class RegionTable:
    """Fills the table with regions and highlights the one under review."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self._fit = TableFit(table, stretched=_SENTENCE, optional=(_STATE,), maxRows=_MAX_ROWS)

    def clear(self) -> None:
        """No regions: hide the table."""
        self._table.setRowCount(0)
        self._table.visible = False

    def fill(self, regions: Sequence[Region]) -> None:
        """Show the regions."""
        table = self._table
        table.setColumnCount(len(wording.REGION_COLUMNS))
        table.setHorizontalHeaderLabels(list(wording.REGION_COLUMNS))
        table.setRowCount(len(regions))
        for row, region in enumerate(regions):
            for column, text in enumerate((str(region.number + 1), region.sentence, stateLabel(region.state))):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(region.sentence)
                table.setItem(row, column, item)
            table.item(row, _NUMBER).setIcon(_dot(region.state))
        self._fit.fit()
        table.visible = True

    def select(self, region: Region | None) -> None:
        """Highlight the row of a region and scroll to it."""
        if region is None:
            self._table.clearSelection()
            return
        self._table.selectRow(region.number)
        self._table.scrollToItem(self._table.item(region.number, _NUMBER))


def _dot(state: RegionState) -> Any:
    pixmap = qt.QPixmap(12, 12)
    pixmap.fill(qt.QColor(*_COLOURS[state]))
    return qt.QIcon(pixmap)
