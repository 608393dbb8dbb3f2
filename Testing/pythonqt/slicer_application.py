"""`import slicer` as a scripted module meets it inside the application: base classes, `slicer.app`, i18n, one scene.

What slicer-core has is used as it is: `slicer.util` with `loadUI` and `childWidgetVariables`, the scene, its nodes and
logics. What it has not is modelled here and in `module_bases.py`, `parameter_node.py`, `segment_editor.py` and
`widgets.py`, each with what the real one does in its first lines.
"""

from __future__ import annotations

import ctypes
import functools
import re
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
import slicer.util
from headless.host import HeadlessSlicer
from PySide6 import QtCore, QtUiTools, QtWidgets

from . import module_bases
from .parameter_node import WithinRange, parameterNodeWrapper
from .qt_module import makeQtModule
from .widgets import CUSTOM, qMRMLWidget


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
            ScriptedLoadableModule=module_bases.ScriptedLoadableModule,
            ScriptedLoadableModuleWidget=module_bases.ScriptedLoadableModuleWidget,
            ScriptedLoadableModuleLogic=module_bases.ScriptedLoadableModuleLogic,
            ScriptedLoadableModuleTest=module_bases.ScriptedLoadableModuleTest,
        )
        self.app = SlicerApp(self.qapplication)
        slicer.app = self.app
        slicer.modules = types.SimpleNamespace()
        self.qt.QUiLoader = functools.partial(_Loader, self.qt)  # type: ignore[attr-defined]

    def openModule(self, module: types.ModuleType) -> Any:
        """The panel of a scripted module, opened as Slicer does: C++ side, Python class, `setup`, then `enter`."""
        setattr(slicer.modules, module.__name__.lower(), types.SimpleNamespace(path=module.__file__))
        parent = ModuleWidget()
        widget = getattr(module, f"{module.__name__}Widget")(parent)
        parent.python = widget
        widget.setup()
        parent.enter()
        return widget

    def clearScene(self) -> None:
        """Empty slicer.mrmlScene, parameter nodes included; like the application it lives as long as the process."""
        scene = self.host.scene
        scene.Clear(False)
        count = scene.GetNumberOfNodesByClass("vtkMRMLScriptedModuleNode")
        # Listed before the first is removed: an open panel replaces its own by a new one.
        for node in [scene.GetNthNodeByClass(n, "vtkMRMLScriptedModuleNode") for n in range(count)]:
            scene.RemoveNode(node)
        # A test may have cleared the singletons as well; the application adds its own again.
        for node in (self.host.logic.GetSelectionNode(), self.host.logic.GetInteractionNode()):
            if node.GetScene() is None:
                scene.AddNode(node)

    def process(self) -> None:
        """Process pending events."""
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


class ModuleWidget(qMRMLWidget):
    """The C++ side of a module's panel, which the main window shows and hides, and which knows whether it is entered.

    Slicer enters a panel after it has been set up, and leaves it when another module is chosen and when it closes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setLayout(QtWidgets.QVBoxLayout())
        self.setMRMLScene(slicer.mrmlScene)
        self.python: Any = None
        self._entered = False

    isEntered = QtCore.Property(bool, lambda self: self._entered)

    def enter(self) -> None:
        """The module is chosen."""
        self._entered = True
        if hasattr(self.python, "enter"):
            self.python.enter()

    def exit(self) -> None:
        """Another module is chosen."""
        self._entered = False
        if hasattr(self.python, "exit"):
            self.python.exit()


class ModuleManager:
    """Notifies a panel when its module is unloaded."""

    def __init__(self) -> None:
        self._receivers: list[Callable[[str], None]] = []

    def connect(self, signature: str, receiver: Callable[[str], None]) -> None:
        """Call `receiver` when a module is unloaded."""
        assert signature == "moduleAboutToBeUnloaded(QString)", signature
        self._receivers.append(receiver)

    def disconnect(self, signature: str, receiver: Callable[[str], None]) -> None:
        """Stop calling `receiver`."""
        self._receivers.remove(receiver)

    def unload(self, name: str) -> None:
        """As Slicer does at exit, and before it reloads a module."""
        for receiver in list(self._receivers):
            receiver(name)


class SlicerApp:
    """The part of `slicer.app` that scripted modules use; `testing` is Slicer's --testing."""

    def __init__(self, qapplication: QtCore.QCoreApplication) -> None:
        self.testing = False
        self._qapplication = qapplication
        self._settings = tempfile.TemporaryDirectory(prefix="slicer-settings-")
        self._modules = ModuleManager()
        self._receivers: dict[str, list[Callable[[], None]]] = {"startupCompleted()": [], "aboutToQuit()": []}

    def connect(self, signature: str, receiver: Callable[[], None]) -> None:
        """In Slicer a signal that does not exist only prints; here it fails."""
        self._receivers[signature].append(receiver)

    def emit(self, signature: str) -> None:
        """Call the receivers of a signal."""
        for receiver in self._receivers[signature]:
            receiver()

    def disconnectAll(self) -> None:
        """Remove the receivers of a module that was only created for a test."""
        for receivers in self._receivers.values():
            receivers.clear()

    def moduleManager(self) -> ModuleManager:
        """Loads and unloads modules."""
        return self._modules

    @property
    def slicerUserSettingsFilePath(self) -> str:
        """The settings of the user, in a folder of this process."""
        return str(Path(self._settings.name) / "Slicer.ini")

    def testingEnabled(self) -> bool:
        """Whether Slicer runs its tests, so that no dialog is shown."""
        return self.testing

    def processEvents(self) -> None:
        """Process pending events."""
        self._qapplication.processEvents()


class _Loader(QtUiTools.QUiLoader):
    def __init__(self, qt: types.ModuleType) -> None:
        super().__init__()
        self._qt = qt

    def load(self, file: QtCore.QIODevice) -> QtWidgets.QWidget:
        """The form without its connections: their signals pass MRML pointers, which PySide6 does not know.

        The stand-in of qMRMLWidget hands the scene on by itself.
        """
        text = re.sub(r"<connections>.*</connections>", "", file.readAll().data().decode(), flags=re.DOTALL)
        buffer = QtCore.QBuffer()
        buffer.setData(text.encode())
        buffer.open(QtCore.QIODevice.ReadOnly)
        return super().load(buffer)

    def createWidget(self, className: str, parent: QtWidgets.QWidget | None = None, name: str = "") -> Any:
        """Our own class where there is one, else PythonQt's view of Qt's."""
        cls = CUSTOM.get(className) or getattr(self._qt, className)
        widget = cls(parent)
        widget.setObjectName(name)
        return widget


def _install(name: str, **members: Any) -> None:
    module = types.ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module
    setattr(slicer, name.rpartition(".")[2], module)
