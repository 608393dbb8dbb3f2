"""The table of organs: colour, name, volume with its interval, confidence."""

from typing import Any

import qt

from ..scene.terminology import ModelDescription

COLUMNS = ("Organ", "Volume", "90 % interval", "Confidence")
_ROW_PIXELS = 22
_MOST_ROWS = 14


def clearResultTable(ui: Any) -> None:
    """No result: a line of text takes the table's place."""
    ui.resultTable.setRowCount(0)
    ui.resultTable.visible = False
    ui.emptyLabel.visible = True


def fillResultTable(ui: Any, report: dict[str, Any], model: ModelDescription) -> None:
    """Show the report's organs, those found, in the order of the model, in as many rows as they need."""
    table = ui.resultTable
    colours = {definition.name: definition.colour for definition in model.labels}
    organs = [organ for organ in report.get("organs", []) if organ["volume_ml"] > 0]
    table.setColumnCount(len(COLUMNS))
    table.setHorizontalHeaderLabels(list(COLUMNS))
    table.setRowCount(len(organs))
    for row, organ in enumerate(organs):
        low, high = organ["volume_interval_ml"]
        texts = (
            organ["title"],
            f"{_millilitres(organ['volume_ml'])} mL",
            f"{_millilitres(low)} to {_millilitres(high)}",
            f"{100 * organ['confidence']:.0f} %",
        )
        for column, text in enumerate(texts):
            item = qt.QTableWidgetItem(text)
            if column > 0:
                item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            table.setItem(row, column, item)
        table.item(row, 0).setIcon(_swatch(colours[organ["name"]]))
    header = table.horizontalHeader()
    header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
    for column in range(1, len(COLUMNS)):
        header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)

    table.setFixedHeight(_ROW_PIXELS * (min(len(organs), _MOST_ROWS) + 1) + 6)
    table.visible = bool(organs)
    ui.emptyLabel.visible = not organs


def _millilitres(volume: float) -> str:
    return f"{volume:.0f}" if volume >= 10 else f"{volume:.1f}"


def _swatch(colour: tuple[float, float, float]) -> Any:
    pixmap = qt.QPixmap(12, 12)
    pixmap.fill(qt.QColor(*(round(255 * channel) for channel in colour)))
    return qt.QIcon(pixmap)
