"""What the Qt code must not contain, because PythonQt differs from PySide6 there: checked in the source code.

The stand-in fails for the same reasons in lines that a test runs; the rules also cover lines that no test runs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Container, Iterator

# Arguments of the signals that the code connects to, the longest overload.
SIGNALS = {
    **dict.fromkeys(("timeout", "editingFinished", "returnPressed", "readyRead", "activated", "started"), 0),
    **dict.fromkeys(("readyReadStandardOutput", "readyReadStandardError", "itemSelectionChanged"), 0),
    **dict.fromkeys(("clicked", "toggled", "triggered", "contentsCollapsed"), 1),
    **dict.fromkeys(("valueChanged", "currentIndexChanged", "currentTextChanged", "textChanged"), 1),
    **dict.fromkeys(("currentNodeChanged", "itemChanged", "stateChanged"), 1),
    **dict.fromkeys(("cellClicked", "cellChanged", "cellDoubleClicked", "finished"), 2),
    "rangeChanged": 2,
    "sectionResized": 3,
}
# Properties whose names nothing else in the code has; many others, such as `text`, are methods of other classes.
PROPERTIES = {
    *("enabled", "visible", "toolTip", "checked", "currentIndex", "currentText", "maximum", "minimum", "collapsed"),
    *("windowTitle", "placeholderText", "objectName", "rowCount", "columnCount", "wordWrap"),
}
CUSTOM_SIGNALS = {"Signal", "Slot", "Property", "pyqtSignal"}
SHORT_LIVED = {"QTimer", "QShortcut", "QProcess"}
_SCOPED = re.compile(r"qt\.Q\w+\.[A-Z]\w*\.[A-Z]\w*")
_QT_CLASS = re.compile(r"\b(?:qt|ctk|slicer)\.(?:Q|ctk|q)\w+")

Rule = Callable[[ast.Module], Iterator[tuple[int, str]]]


def violations(source: str) -> list[str]:
    """All violations of the rules in a file, as "line: what is wrong"."""
    tree = ast.parse(source)
    breaches = {(line, text) for rule in RULES for line, text in rule(tree)}
    return [f"{line}: {text}" for line, text in sorted(breaches)]


def trueProperty(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """PySide6's `true_property` crashes on setters that PythonQt has."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "__feature__":
            yield node.lineno, "no __feature__: PythonQt has properties and setters side by side"


def scopedEnumerations(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The members of an enumeration stand in its class, and are no `int`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _SCOPED.fullmatch(ast.unparse(node)):
            yield node.lineno, f"{ast.unparse(node)}: write it without the enumeration"
        if _calls(node, "int") and _mentionsQt(node):
            yield node.lineno, "no int() of what Qt gives"


def instanceChecks(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """`isinstance` is true for the exact class alone."""
    for node in ast.walk(tree):
        if _calls(node, "isinstance", "issubclass") and _mentionsQt(node):
            yield node.lineno, "isinstance of a Qt class: ask inherits()"


def customSignals(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Signals of our own are `worker.signal.Signal`; those of Qt are neither made nor emitted."""
    ours = {
        ast.unparse(node.targets[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.value) == "Signal()"
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        if node.attr in CUSTOM_SIGNALS and ast.unparse(node.value) == "qt":
            yield node.lineno, f"qt.{node.attr}: use worker.signal.Signal"
        origin = node.value
        if node.attr == "emit" and isinstance(origin, ast.Attribute) and _isQtSignal(origin, but=ours):
            yield node.lineno, f"{ast.unparse(node)}: Qt emits its own signals"


def singleShots(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """`singleShot` leaks as a function and fails as a property."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "singleShot":
            yield node.lineno, "no singleShot: keep a QTimer and connect its timeout"


def properties(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """A property is read without a call."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or node.args or node.keywords:
            continue
        if isinstance(node.func, ast.Attribute) and node.func.attr in PROPERTIES:
            yield node.lineno, f"{ast.unparse(node)}: a property is no method"


def conversions(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """What returns otherwise in PythonQt: byte arrays, and dialogs that ask for one value."""
    for node in ast.walk(tree):
        if _calls(node, "bytes") and "readAll" in ast.unparse(node):
            yield node.lineno, "bytes() of a QByteArray: take its data()"
        if isinstance(node, ast.Attribute) and node.attr == "QInputDialog":
            yield node.lineno, "QInputDialog returns something else in PythonQt: make a dialog"


def kept(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """What works on after the function has ended must be kept in an object, or returned to the caller."""
    returned = {ast.unparse(node.value) for node in ast.walk(tree) if isinstance(node, ast.Return) and node.value}
    for node in ast.walk(tree):
        value = node.value if isinstance(node, (ast.Assign, ast.Expr, ast.AnnAssign)) else None
        if not (isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute)):
            continue
        made = value.func.attr in SHORT_LIVED and ast.unparse(value.func.value) == "qt"
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        held = any(
            isinstance(target, ast.Attribute) or (target and ast.unparse(target) in returned) for target in targets
        )
        if made and not held:
            yield node.lineno, f"qt.{value.func.attr} ends with its variable: keep it in self"


def handlers(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """A handler names exactly the arguments that it needs, all without defaults, and no more than the signal has."""
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "connect"):
            continue
        if node.args and isinstance(node.args[0], ast.Constant):
            if ast.unparse(node.func.value) != "slicer.app":
                yield node.lineno, "connect by text only prints when the signal does not exist: name the signal"
        elif node.args and isinstance(node.func.value, ast.Attribute) and _isQtSignal(node.func.value):
            signal = node.func.value.attr
            yield from ((node.lineno, f"{signal}: {text}") for text in _wrongHandler(node.args[0], signal, functions))


def _wrongHandler(handler: ast.expr, signal: str, functions: dict[str, ast.FunctionDef]) -> Iterator[str]:
    method = isinstance(handler, ast.Attribute) and ast.unparse(handler.value) == "self"
    name = handler.attr if isinstance(handler, ast.Attribute) else getattr(handler, "id", "")
    function = handler if isinstance(handler, ast.Lambda) else functions.get(name) if method or name else None
    if isinstance(handler, ast.Call):
        yield f"{ast.unparse(handler.func)}(...) gets every argument: connect a function"
    elif function is not None:
        if function.args.vararg is not None:
            yield "*args gets every argument: name those that are needed"
        if function.args.defaults:
            yield "an argument with a default gets what the signal sends: make it keyword-only"
        count = len(function.args.posonlyargs + function.args.args) - method
        if count > SIGNALS[signal]:
            yield f"the handler takes {count} arguments, the signal has {SIGNALS[signal]}"


def _isQtSignal(node: ast.Attribute, *, but: Container[str] = ()) -> bool:
    """Whether a name is that of a Qt signal; those of the worker's client are ours, and so is what is in `but`."""
    ours = re.search(r"client$", ast.unparse(node.value), re.IGNORECASE) or ast.unparse(node) in but
    return node.attr in SIGNALS and not ours


def _calls(node: ast.AST, *names: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names


def _mentionsQt(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and any(_QT_CLASS.search(ast.unparse(argument)) for argument in node.args)


RULES: tuple[Rule, ...] = (
    *(trueProperty, scopedEnumerations, instanceChecks, customSignals, singleShots),
    *(properties, conversions, kept, handlers),
)
