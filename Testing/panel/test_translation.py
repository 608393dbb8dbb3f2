"""Every text that the panel shows goes through Slicer's translation, as a whole sentence, filled in afterwards."""

from __future__ import annotations

import ast
import json
import os
import re
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PANEL = ROOT / "DiffusionSegment" / "DiffusionSegmentLib" / "panel"
WORDING = PANEL / "wording.py"
SCENE = PANEL.parent / "scene"
# Files of the scene that translate a text.
SCENE_TEXTS = [path for path in sorted(SCENE.glob("*.py")) if "import tr as _" in path.read_text(encoding="utf-8")]
FILES = [*sorted(PANEL.glob("*.py")), *SCENE_TEXTS]
# Attributes and functions that show a text.
SHOWING = {
    *("text", "toolTip", "windowTitle", "placeholderText", "informativeText", "title", "statusTip"),
    *("say", "begin", "addItem", "setText", "setToolTip", "setHorizontalHeaderLabels", "QTableWidgetItem", "QLabel"),
    *("setItemData", "offer", "DiffusionSegmentError", "information", "warning"),
}
WORDS = re.compile(r"[^\W\d_].*\s|\s.*[^\W\d_]|^[A-Z][a-z]+", re.DOTALL)
LETTER = re.compile(r"[^\W\d_]")


def untranslated(source: str, *, every: bool = False) -> list[str]:
    """Texts for a reader that are not inside `_(...)`; with `every`, whatever has a letter, keys of tables apart."""
    tree = ast.parse(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    result = []
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str) and LETTER.search(node.value)):
            continue
        above = list(_above(node, parents))
        if _isNoText(node, above) or any(_isTranslation(parent) for parent in above):
            continue
        if every or WORDS.search(node.value) or _isShown(node, above):
            result.append(f"{node.lineno}: {node.value!r}")
    return result


def notWhole(source: str) -> list[str]:
    """Translations of what is no constant: no dictionary of words holds a sentence with its figures in it."""
    calls = [node for node in ast.walk(ast.parse(source)) if _isTranslation(node)]
    return [ast.unparse(call) for call in calls if not (len(call.args) == 1 and isinstance(call.args[0], ast.Constant))]


def placeholders(text: str) -> list[str]:
    """The names of a text's fields, "" for one without a name."""
    return [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]


def translations(path: Path) -> list[str]:
    """The texts of a file that are translated."""
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if _isTranslation(node)]
    return [str(ast.literal_eval(call.args[0])) for call in calls]


def filledIn(source: str) -> list[tuple[str, list[str]]]:
    """Every text of `wording` that is filled in, by its name, and with what; "" for a value without a name."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    result = [(re.fullmatch(r"wording\.(\w+)\.format", ast.unparse(call.func)), call) for call in calls]
    return [
        (match[1], [*("" for _ in call.args), *(str(keyword.arg) for keyword in call.keywords)])
        for match, call in result
        if match
    ]


def _above(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> Iterator[ast.AST]:
    while node in parents:
        node = parents[node]
        yield node


def _isTranslation(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_"


def _translates(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and any(
        isinstance(part, ast.ImportFrom) and part.module == "slicer.i18n" for part in node.body
    )


def _isNoText(node: ast.Constant, above: list[ast.AST]) -> bool:
    """Docstrings, keys, and the format inside a field of an f-string."""
    parent = above[0]
    if isinstance(parent, ast.Expr) or (isinstance(parent, ast.Dict) and node in parent.keys):
        return True
    return isinstance(parent, ast.JoinedStr) and len(above) > 1 and isinstance(above[1], ast.FormattedValue)


def _isShown(node: ast.Constant, above: list[ast.AST]) -> bool:
    parent = above[0]
    if isinstance(parent, ast.Dict):
        return True
    if isinstance(parent, ast.JoinedStr):
        parent = above[1]
    if isinstance(parent, ast.Assign):
        names = [getattr(target, "attr", "") for target in parent.targets]
    elif isinstance(parent, ast.Call):
        names = [getattr(parent.func, "attr", getattr(parent.func, "id", ""))]
    else:
        names = []
    return bool(SHOWING & set(names))


@pytest.mark.parametrize("path", sorted(PANEL.glob("*.py")), ids=lambda path: path.stem)
def test_no_text_is_shown_untranslated(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert untranslated(source, every=path == WORDING) == []


@pytest.mark.parametrize("path", SCENE_TEXTS, ids=lambda path: path.stem)
def test_functions_of_the_scene_that_translate_leave_no_text_untranslated(path: Path) -> None:
    functions = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if _translates(node)]
    assert functions
    assert [text for function in functions for text in untranslated(ast.unparse(function), every=True)] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_values_are_inserted_after_the_translation(path: Path) -> None:
    assert notWhole(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_placeholders_have_names(path: Path) -> None:
    assert [text for text in translations(path) if not all(placeholders(text))] == []


def test_every_text_is_formatted_with_its_placeholders() -> None:
    constants = {
        node.target.id: placeholders(str(ast.literal_eval(node.value.args[0])))
        for node in ast.parse(WORDING.read_text(encoding="utf-8")).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call) and _isTranslation(node.value)
        if isinstance(node.target, ast.Name)
    }
    calls = [call for path in FILES for call in filledIn(path.read_text(encoding="utf-8"))]
    assert len(calls) > 30
    assert [(name, given) for name, given in calls if sorted(given) != sorted(constants[name])] == []


@pytest.mark.parametrize(
    "source",
    [
        'button.text = "Segment"',
        'button.toolTip = reason or "why it cannot"',
        'stub.say(f"{count} organs were found")',
        'label.text = f"{seconds}s"',
        'COLUMNS = ("Organ", "Volume")',
        'words = {1: "begun"}',
        'raise DiffusionSegmentError(code, "busy")',
        'item = qt.QTableWidgetItem("mL")',
    ],
)
def test_a_missing_translation_is_detected(source: str) -> None:
    assert len(untranslated(source)) >= 1


@pytest.mark.parametrize(
    "source",
    [
        '"""What this file is for."""',
        'button.text = _("Segment")',
        'stub.say(_("{} organs").format(count))',
        'report.get("model", "")',
        'report["organs"]',
        'text = f"⚠ {message:.0f} [{code}]"',
        'return chosen + ".html"',
    ],
)
def test_texts_that_are_not_shown_need_no_translation(source: str) -> None:
    assert untranslated(source) == []


def test_a_translation_of_a_formatted_text_is_detected() -> None:
    assert notWhole('_(f"{count} organs")')
    assert notWhole('_("{} organs".format(count))')
    assert not notWhole('_("{} organs").format(count)')


IN_ANOTHER_LANGUAGE = """
import json, sys
from pythonqt.slicer_application import Application
application = Application()
sys.modules["slicer.i18n"].tr = lambda text: "«" + text + "»"
import DiffusionSegment as module
widget = application.openModule(module)
widget.ui.modelSearchEdit.setText("kneecap")
seen = set()
for child in vars(widget.ui).values():
    if child.inherits("QPushButton") or child.inherits("QLabel"):
        seen |= {child.text, child.toolTip}
boxes = [widget.ui.overlaySelector, widget.ui.policySelector]
choices = [box.itemText(n) for box in boxes for n in range(box.count)]
from DiffusionSegmentLib.scene.history import StepName
from DiffusionSegmentLib.scene.overlay import STYLES
from DiffusionSegmentBackend.schema.review_state import RegionState
from DiffusionSegmentLib.scene.review import stateLabel
shown = [stateLabel(state) for state in RegionState] + [step.label() for step in StepName]
shown += [StepName.SEGMENT.undoText(), StepName.SEGMENT.redoText()]
shown += [kind.legendTitle() for kind in STYLES]
widget.ui.overlaySelector.setCurrentIndex(2)
widget.ui.policySelector.setCurrentIndex(3)
node = widget._parameterNode.parameterNode
saved = [node.GetParameter(name) for name in ("overlay", "mergePolicy")]
print(json.dumps({"seen": sorted(seen), "choices": choices, "shown": shown, "saved": saved}))
widget.cleanup()
"""


@pytest.fixture(scope="module")
def translated() -> dict[str, list[str]]:
    """Texts of a panel in a language that puts «» around every text, and the values that it saves."""
    folders = [str(ROOT / "DiffusionSegment"), str(ROOT / "Testing")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_LANGUAGE], env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_in_another_language_every_button_and_label_is_translated(translated: dict[str, list[str]]) -> None:
    """Texts of the .ui file apart, which Qt translates by itself."""
    form = (ROOT / "DiffusionSegment" / "Resources" / "UI" / "DiffusionSegment.ui").read_text(encoding="utf-8")
    own = [text for text in translated["seen"] if LETTER.search(text) and f"<string>{text}</string>" not in form]
    assert len(own) > 10
    assert [text for text in own if not text.startswith("«")] == []


@pytest.mark.parametrize(("kind", "count"), [("choices", 10), ("shown", 16)])
def test_kinds_policies_states_steps_and_legends_are_translated(
    translated: dict[str, list[str]], kind: str, count: int
) -> None:
    assert len(translated[kind]) == count
    assert [text for text in translated[kind] if not text.startswith("«")] == []


def test_saved_values_do_not_depend_on_the_language(translated: dict[str, list[str]]) -> None:
    assert translated["saved"] == ["MUTUAL_INFORMATION", "RESPECT_LOCKED"]
