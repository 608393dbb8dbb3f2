"""The Qt code uses only what PythonQt supports, also in lines that no test executes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from pythonqt.rules import RULES, Rule, violations

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "DiffusionSegment"

BREACHES = [
    ("from __feature__ import true_property", "__feature__"),
    ("label.alignment = qt.Qt.AlignmentFlag.AlignRight", "without the enumeration"),
    ("header.setSectionResizeMode(0, qt.QHeaderView.ResizeMode.Stretch)", "without the enumeration"),
    ("value = int(qt.Qt.AlignRight)", "no int()"),
    ("found = isinstance(widget, qt.QWidget)", "inherits()"),
    ("found = isinstance(widget, (ctk.ctkSliderWidget, str))", "inherits()"),
    ("class A(qt.QObject):\n    changed = qt.Signal(int)", "worker.signal.Signal"),
    ("button.clicked.emit()", "Qt emits its own signals"),
    ("qt.QTimer.singleShot(100, f)", "singleShot"),
    ("self.timer.singleShot = True", "singleShot"),
    ("if box.checked():\n    pass", "a property is no method"),
    ("data = bytes(process.readAllStandardOutput())", "data()"),
    ("name = qt.QInputDialog.getText(None, '', '')", "make a dialog"),
    ("timer = qt.QTimer()", "keep it in self"),
    ("qt.QShortcut(key, parent)", "keep it in self"),
    ("button.connect('clicked(bool)', f)", "by text"),
    ("button.clicked.connect(functools.partial(f, 1))", "gets every argument"),
    ("button.clicked.connect(lambda *args: f())", "*args"),
    ("button.clicked.connect(lambda force=False: f(force))", "keyword-only"),
    ("button.clicked.connect(lambda a, b: f())", "takes 2 arguments, the signal has 1"),
    ("self.timer.timeout.connect(lambda a: f())", "takes 1 arguments, the signal has 0"),
    ("def onApply(force=False):\n    pass\nbutton.clicked.connect(onApply)", "keyword-only"),
    (
        "class A:\n    def f(self):\n        b.clicked.connect(self.on)\n    def on(self, a, b):\n        pass",
        "takes 2 arguments",
    ),
]


def qt_files() -> list[Path]:
    """All files that may use widgets: the module and its Slicer side."""
    return [MODULE / "DiffusionSegment.py", *sorted((MODULE / "DiffusionSegmentLib").rglob("*.py"))]


def test_the_qt_code_follows_the_rules() -> None:
    broken = [f"{path.name}:{text}" for path in qt_files() for text in violations(path.read_text(encoding="utf-8"))]
    assert broken == []


@pytest.mark.parametrize(("line", "message"), BREACHES)
def test_each_rule_detects_its_violation(line: str, message: str) -> None:
    broken = violations(line)
    assert len(broken) == 1, broken
    assert message in broken[0]


@pytest.mark.parametrize(
    "line",
    [
        "label.alignment = qt.Qt.AlignRight",
        "button.clicked.connect(lambda: f())",
        "button.clicked.connect(self.onClick)",
        "class A:\n    def f(self):\n        b.clicked.connect(self.on)\n    def on(self, *, now=False):\n        pass",
        "self.timer = qt.QTimer()",
        "def f():\n    timer = qt.QTimer()\n    return timer",
        "self.finished = Signal()\nself.finished.emit(1)",
        "client.finished.connect(lambda answer: f(answer))",
        "self._client.stateChanged.connect(self.onState)",
        "data = process.readAllStandardOutput().data()",
        "found = isinstance(answer, Result)",
        'slicer.app.connect("startupCompleted()", f)',
        "widget.setVisible(False)",
    ],
)
def test_supported_code_is_no_violation(line: str) -> None:
    assert violations(line) == []


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_an_example(rule: Rule) -> None:
    """Every rule must detect at least one of the examples."""
    assert any(list(rule(ast.parse(line))) for line, _ in BREACHES)
