"""A table that fits its panel: as high as its rows, with fewer columns in a narrow panel."""

from collections.abc import Sequence
from typing import Any

import qt

# Space around a line of text in a cell.
_ROW_MARGIN = 6
_NAME_CHARACTERS = 20


class TableFit:
    """Fits a table to the panel: the column `stretched` fills the width; `optional` columns are hidden if necessary.

    The first of `optional` is hidden first. At most `maxRows` rows are visible without scrolling.
    """

    def __init__(self, table: Any, *, stretched: int, optional: Sequence[int], maxRows: int) -> None:
        self._table = table
        self._stretched = stretched
        self._optional = tuple(optional)
        self._maxRows = maxRows
        self._needed: list[int] = []
        self._measuredFont = (0, 0)
        # Sections must not be hidden while Qt is still resizing them.
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.arrange)
        table.horizontalHeader().sectionResized.connect(self.onSectionResized)
        table.horizontalScrollBar().rangeChanged.connect(self.onRangeChanged)

    def fit(self) -> None:
        """The table was filled: measure its columns, and arrange them."""
        self._measure()
        self.arrange()

    def _measure(self) -> None:
        table, header = self._table, self._table.horizontalHeader()
        table.verticalHeader().setSectionResizeMode(qt.QHeaderView.Fixed)
        table.verticalHeader().setDefaultSectionSize(self._rowHeight())
        columns = range(table.columnCount)
        for column in columns:
            table.setColumnHidden(column, False)
            stretch = column == self._stretched
            mode = qt.QHeaderView.Stretch if stretch else qt.QHeaderView.ResizeToContents
            header.setSectionResizeMode(column, mode)
        self._needed = [max(table.sizeHintForColumn(column), header.sectionSizeHint(column)) for column in columns]
        self._measuredFont = self._font()
        widest = _NAME_CHARACTERS * table.fontMetrics().averageCharWidth()
        self._needed[self._stretched] = min(self._needed[self._stretched], widest)

    def onSectionResized(self, index: int, before: int, after: int) -> None:
        """The panel became wider or narrower."""
        if index == self._stretched and self._needed:
            self._timer.start(0)

    def onRangeChanged(self, minimum: int, maximum: int) -> None:
        """The columns are wider than the table, so that the stretched one is not resized."""
        if self._needed:
            self._timer.start(0)

    def arrange(self) -> None:
        """Hide as many optional columns as necessary, and set the height of the table."""
        if self._measuredFont != self._font():
            self._measure()
        table, hidden = self._table, 0
        available = self._availableWidth()
        while hidden < len(self._optional) and self._width(self._optional[:hidden]) > available:
            hidden += 1
        for number, column in enumerate(self._optional):
            table.setColumnHidden(column, number < hidden)
        table.setFixedHeight(self._height(scrollBar=self._width(self._optional[:hidden]) > available))

    def _availableWidth(self) -> int:
        """Width for columns without the vertical scroll bar."""
        table = self._table
        bar = _hinted(table.verticalScrollBar()).width() if table.rowCount > self._maxRows else 0
        return int(table.maximumViewportSize().width() - bar)

    def _font(self) -> tuple[int, int]:
        metrics = self._table.fontMetrics()
        return int(metrics.height()), int(metrics.averageCharWidth())

    def _rowHeight(self) -> int:
        return int(self._table.fontMetrics().height() + _ROW_MARGIN)

    def _width(self, hidden: Sequence[int]) -> int:
        return sum(width for column, width in enumerate(self._needed) if column not in hidden)

    def _height(self, *, scrollBar: bool) -> int:
        table = self._table
        rows = min(table.rowCount, self._maxRows) * self._rowHeight()
        bar = _hinted(table.horizontalScrollBar()).height() if scrollBar else 0
        return int(_hinted(table.horizontalHeader()).height() + rows + 2 * table.frameWidth + bar)


def _hinted(part: Any) -> Any:
    """The size hint of a part of the table."""
    return part.property("sizeHint")
