"""A table that fits its panel: as high as its rows, and with fewer columns where there is no room for all."""

from collections.abc import Sequence
from typing import Any

import qt

# What Qt leaves around a line of text in a cell.
_ROW_MARGIN = 6
_NAME_CHARACTERS = 20


class TableFit:
    """Keeps one column readable, the one that takes the room that is left; the `optional` ones make room for it.

    The first of `optional` goes first. `maxRows` rows are seen at once, the others by scrolling.
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
        """The room that is left has changed: the panel became wider or narrower."""
        if index == self._stretched and self._needed:
            self._timer.start(0)

    def onRangeChanged(self, minimum: int, maximum: int) -> None:
        """The columns are wider than the table: Qt leaves the stretched one as it is where nothing is left for it."""
        if self._needed:
            self._timer.start(0)

    def arrange(self) -> None:
        """Hide as many columns as must be, show those that fit again, and be as high as what is shown."""
        if self._measuredFont != self._font():
            self._measure()
        table, hidden = self._table, 0
        room = self._room()
        while hidden < len(self._optional) and self._width(self._optional[:hidden]) > room:
            hidden += 1
        for number, column in enumerate(self._optional):
            table.setColumnHidden(column, number < hidden)
        table.setFixedHeight(self._height(scrollBar=self._width(self._optional[:hidden]) > room))

    def _room(self) -> int:
        """Width for columns, beside the bar that scrolls through the rows."""
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
    """The size that a part of the table asks for."""
    return part.property("sizeHint")
