"""`import slicer` as a scripted module meets it inside the application: base classes, loadUI, i18n, one scene."""

from __future__ import annotations

import ctypes
import functools
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
import slicer.util
from headless.host import HeadlessSlicer
from PySide6 import QtCore, QtUiTools, QtWidgets

from .parameter_node import WithinRange, parameterNodeWrapper
from .qt_module import makeQtModule
from .widgets import CUSTOM


class Application:
    """Slicer's surroundings, installed into `sys.modules` and `slicer` once per process."""

    def __init__(self) -> None:
        keepSingletons()
        self.qapplication = QtWidgets.QApplication.instance() or QtWidgets.QApplication(sys.argv[:1])
        self.qt = makeQtModule()
        sys.modules["qt"] = self.qt
        self.host = HeadlessSlicer()
        slicer.mrmlScene = self.host.scene
        _install("slicer.i18n", tr=lambda text: text, translate=lambda context, text: text)
        _install("slicer.parameterNodeWrapper", parameterNodeWrapper=parameterNodeWrapper, WithinRange=WithinRange)
        _install(
            "slicer.ScriptedLoadableModule",
            ScriptedLoadableModule=ScriptedLoadableModule,
            ScriptedLoadableModuleWidget=ScriptedLoadableModuleWidget,
            ScriptedLoadableModuleLogic=ScriptedLoadableModuleLogic,
            ScriptedLoadableModuleTest=ScriptedLoadableModuleTest,
        )
        self.app = SlicerApp(self.qapplication)
        slicer.app = self.app
        slicer.util.loadUI = self.loadUI
        slicer.util.childWidgetVariables = childWidgetVariables

    def clearScene(self) -> None:
        """Empty slicer.mrmlScene, parameter nodes included; like the application it lives as long as the process."""
        scene = self.host.scene
        scene.Clear(False)
        count = scene.GetNumberOfNodesByClass("vtkMRMLScriptedModuleNode")
        # Listed before the first goes: an open panel puts a new one in the place of its own.
        for node in [scene.GetNthNodeByClass(n, "vtkMRMLScriptedModuleNode") for n in range(count)]:
            scene.RemoveNode(node)

    def loadUI(self, path: str) -> QtWidgets.QWidget:
        """Load a .ui file; every widget gets PythonQt's manners."""
        text = Path(path).read_text(encoding="utf-8")
        # Signals of C++ classes that pass MRML pointers do not exist here; qMRMLWidget hands the scene on by itself.
        text = re.sub(r"<connections>.*</connections>", "", text, flags=re.DOTALL)
        buffer = QtCore.QBuffer()
        buffer.setData(text.encode())
        buffer.open(QtCore.QIODevice.ReadOnly)
        widget = _Loader(self.qt).load(buffer)
        assert widget is not None, f"{path} could not be loaded"
        return widget

    def process(self) -> None:
        """Let Qt deliver what is waiting."""
        self.qapplication.processEvents()


@functools.cache
def keepSingletons() -> None:
    """Make None, True and False immortal, as they are from Python 3.12 on.

    PySide6 6.12 gives away a reference to them with each call that returns one, such as processEvents; before that
    version of Python a long session runs out of references, and the interpreter ends.
    """
    if sys.version_info < (3, 12):
        for item in (None, True, False):
            ctypes.c_ssize_t.from_address(id(item)).value += 1 << 40


class SlicerApp:
    """What scripted modules ask of `slicer.app`; `testing` is Slicer's --testing."""

    def __init__(self, qapplication: QtCore.QCoreApplication) -> None:
        self.testing = False
        self._qapplication = qapplication
        self._receivers: dict[str, list[Callable[[], None]]] = {"startupCompleted()": [], "aboutToQuit()": []}

    def connect(self, signature: str, receiver: Callable[[], None]) -> None:
        """In Slicer a signal that does not exist only prints; here it fails."""
        self._receivers[signature].append(receiver)

    def tell(self, signature: str) -> None:
        """Slicer reaches this point of its life."""
        for receiver in self._receivers[signature]:
            receiver()

    def forget(self) -> None:
        """A module that was only made for a test is gone."""
        for receivers in self._receivers.values():
            receivers.clear()

    def testingEnabled(self) -> bool:
        """Whether nobody is there to answer a dialog."""
        return self.testing

    def processEvents(self) -> None:
        """Let Qt deliver what is waiting."""
        self._qapplication.processEvents()


class _Loader(QtUiTools.QUiLoader):
    def __init__(self, qt: types.ModuleType) -> None:
        super().__init__()
        self._qt = qt

    def createWidget(self, className: str, parent: QtWidgets.QWidget | None = None, name: str = "") -> Any:
        """Our own class where there is one, else PythonQt's view of Qt's."""
        cls = CUSTOM.get(className) or getattr(self._qt, className)
        widget = cls(parent)
        widget.setObjectName(name)
        return widget


def childWidgetVariables(widget: QtWidgets.QWidget) -> types.SimpleNamespace:
    """All named widgets below as attributes."""
    named = {QtCore.QObject.objectName(child): child for child in widget.findChildren(QtWidgets.QWidget)}
    return types.SimpleNamespace(**{n: child for n, child in named.items() if n and not n.startswith("qt_")})


def _install(name: str, **members: Any) -> None:
    module = types.ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module
    setattr(slicer, name.rpartition(".")[2], module)


class _Parent(types.SimpleNamespace):
    """The C++ side of a module or its widget."""


class ScriptedLoadableModule:
    """Base class of a module's description."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent


class ScriptedLoadableModuleWidget:
    """Base class of a module's panel: `layout` receives its widgets, `parent.isEntered` says whether it is shown."""

    modulePath: Path

    def __init__(self, parent: Any = None) -> None:
        self.frame = QtWidgets.QWidget()
        self.layout = QtWidgets.QVBoxLayout(self.frame)
        self.parent = parent or _Parent(isEntered=True)

    def setup(self) -> None:
        """Nothing to prepare."""

    def resourcePath(self, name: str) -> str:
        """A file below the module's Resources."""
        module = Path(sys.modules[type(self).__module__].__file__ or "")
        return str(module.parent / "Resources" / name)


class ScriptedLoadableModuleLogic:
    """Base class of a module's logic."""

    def __init__(self, parent: Any = None) -> None:
        self.parent = parent

    def getParameterNode(self) -> Any:
        """The module's one parameter node in the scene."""
        name = type(self).__name__.removesuffix("Logic")
        node = slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.SetSingletonTag(name)
            node.SetName(name)
            node = slicer.mrmlScene.AddNode(node)
        return node


class ScriptedLoadableModuleTest:
    """Base class of a module's self-test."""
