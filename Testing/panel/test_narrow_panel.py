"""The tables in a narrow panel and with a large font: names can be read, and the last row is whole."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from panel.conftest import PanelUser
from PySide6 import QtGui, QtWidgets

MODULE = Path(__file__).resolve().parents[2] / "DiffusionSegment"
UI = MODULE / "Resources" / "UI" / "DiffusionSegment.ui"
ORGAN, VOLUME, INTERVAL = 0, 1, 2
SENTENCE = 1
MANY = 24


@pytest.fixture(params=[9, 12])
def font(request: pytest.FixtureRequest, user: PanelUser) -> Iterator[int]:
    before = QtWidgets.QApplication.font()
    QtWidgets.QApplication.setFont(QtGui.QFont(before.family(), request.param))
    yield request.param
    QtWidgets.QApplication.setFont(before)


def settle(user: PanelUser, width: int) -> None:
    user.widget.parent.resize(width, 900)
    for _ in range(6):
        user.application.process()


def needed(table: Any, column: int) -> int:
    """The width of the widest text of a column."""
    return int(table.sizeHintForColumn(column))


def lastRowIsWhole(table: Any) -> bool:
    last = table.visualItemRect(table.item(table.rowCount - 1, ORGAN))
    return bool(last.bottom() <= table.viewport().height())


@pytest.mark.parametrize("width", [350, 400, 490, 500, 700])
def test_organs_can_be_read_at_every_width(user: PanelUser, font: int, width: int) -> None:
    user.addVolume()
    user.segment()
    settle(user, width)
    table = user.ui.resultTable
    assert table.columnWidth(ORGAN) >= needed(table, ORGAN)
    assert not table.isColumnHidden(VOLUME)
    assert table.horizontalHeader().length() <= table.viewport().width()
    assert lastRowIsWhole(table)
    assert table.rowHeight(0) > table.fontMetrics().height()


@pytest.mark.parametrize("width", [350, 700])
def test_sentences_of_regions_can_be_read(user: PanelUser, font: int, width: int) -> None:
    user.addVolume()
    user.segment()
    settle(user, width)
    table = user.ui.regionTable
    assert table.columnWidth(SENTENCE) >= 20 * table.fontMetrics().averageCharWidth()
    assert lastRowIsWhole(table)


def test_columns_are_hidden_in_a_narrow_panel_and_shown_in_a_wide_one(user: PanelUser) -> None:
    user.addVolume()
    user.segment()
    table = user.ui.resultTable
    settle(user, 700)
    assert not table.isColumnHidden(INTERVAL)
    settle(user, 350)
    assert table.isColumnHidden(INTERVAL)
    assert "180 to 240" in table.item(0, VOLUME).toolTip()
    assert "Within 4 mm of the segment lie 99 % of the organ in 90 % of 22 scans" in table.item(0, VOLUME).toolTip()
    assert "Within" not in table.item(1, VOLUME).toolTip()
    settle(user, 700)
    assert not table.isColumnHidden(INTERVAL)


def test_the_table_fits_in_a_section_that_was_closed_during_the_run(user: PanelUser) -> None:
    user.addVolume()
    user.ui.resultButton.collapsed = True
    settle(user, 350)
    user.segment()
    user.ui.resultButton.collapsed = False
    settle(user, 350)
    table = user.ui.resultTable
    assert table.columnWidth(ORGAN) >= needed(table, ORGAN)


def shownAndHidden() -> set[str]:
    """Widgets of the form whose visibility the panel changes."""
    sources = (MODULE / "DiffusionSegmentLib" / "panel").glob("*.py")
    names: set[str] = set()
    for path in sources:
        text = path.read_text(encoding="utf-8")
        names |= set(re.findall(r"ui\.(\w+)\.visible = ", text))
        for local in re.findall(r"^\s+(\w+)\.visible = ", text, re.MULTILINE):
            names |= set(re.findall(rf"\b{local} = (?:self\._)?ui\.(\w+)\b", text))
    return names


def test_widgets_with_changing_visibility_are_not_in_a_form_layout() -> None:
    """Qt 6.4 writes out of bounds when one row of a QFormLayout is shown while all are hidden."""
    forms = (item for item in ElementTree.parse(UI).iter("layout") if item.attrib["class"] == "QFormLayout")
    rows = {widget.attrib["name"] for form in forms for item in form for widget in item.findall("widget")}
    assert {"selfTestLabel", "modelSearchLabel", "messageLabel"} <= shownAndHidden() | {"modelSearchLabel"}
    assert not rows & (shownAndHidden() | {"modelSearchLabel"})
