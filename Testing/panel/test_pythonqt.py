"""The PythonQt stand-in fails where PythonQt fails."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import slicer.util
from pythonqt.slicer_application import Application

LIB = Path(__file__).resolve().parents[2] / "DiffusionSegment" / "DiffusionSegmentLib"


@pytest.fixture
def qt(application: Application) -> Any:
    return application.qt


def test_properties_are_attributes_and_not_callable(qt: Any) -> None:
    label = qt.QLabel("one")
    label.text = "two"
    assert label.text == "two"
    with pytest.raises(TypeError):
        label.text()


def test_a_misspelt_property_is_refused(qt: Any) -> None:
    with pytest.raises(AttributeError, match="no property 'tooltip'"):
        qt.QPushButton().tooltip = "never seen"


def test_enumerations_are_flat(qt: Any) -> None:
    assert qt.QHeaderView.Stretch == qt.QHeaderView.Stretch
    with pytest.raises(AttributeError):
        _ = qt.QHeaderView.ResizeMode.Stretch
    with pytest.raises(AttributeError):
        _ = qt.Qt.AlignmentFlag.AlignRight


def test_stand_ins_show_the_value_that_was_set(application: Application, tmp_path: Path) -> None:
    path = tmp_path / "one.ui"
    path.write_text(
        '<ui version="4.0"><widget class="ctkSliderWidget" name="slider">'
        '<property name="maximum"><double>2.0</double></property></widget></ui>'
    )
    slider = slicer.util.loadUI(str(path))
    slider.value = 1.5
    assert slider._box.text() == "1.50"
    assert slider._slider.value() == 750


def test_the_panel_uses_no_scoped_enumeration_anywhere() -> None:
    for path in LIB.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                text = ast.unparse(node)
                assert not re.fullmatch(r"qt\.Q\w+\.[A-Z]\w+\.[A-Z]\w+", text), f"{path.name}: {text}"
