"""The base classes of `slicer.ScriptedLoadableModule`, which slicer-core does not ship.

What the real ones do in their constructors is done here too, because it decides what a module may do in its own:
- each calls `super().__init__()` without arguments, so that every further base class is constructed by it, too;
- the widget runs `setup()` within its constructor when it has no parent, before anything that comes after the call;
- the widget takes its layout from its parent, and its resources from the path of the module;
- the test is a `unittest.TestCase`;
- the parameter node is a singleton with the module's name as an attribute.
Not modelled: the developer's buttons, documentation links, icons, screenshots.
"""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from typing import Any

import slicer
import slicer.util
from PySide6 import QtWidgets

from .widgets import qMRMLWidget


class ScriptedLoadableModule:
    """Base class of a module's description; `parent` is the C++ side, whose defaults a module overwrites."""

    def __init__(self, parent: Any) -> None:
        super().__init__()
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title, parent.categories, parent.dependencies, parent.contributors = "", [], [], ["Slicer Community"]
        parent.helpText = parent.acknowledgementText = "This module was created from a template."
        if not hasattr(slicer, "selfTests"):
            slicer.selfTests = {}
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, name: str) -> str:
        """A file below the module's Resources."""
        return str(Path(self.parent.path).parent / "Resources" / name)

    def runTest(self, msec: int = 100, **options: Any) -> None:
        """Run by *Reload and Test*: the test class of the module, by its name."""
        case = getattr(sys.modules[type(self).__module__], f"{self.moduleName}Test")()
        case.messageDelay = msec
        case.runTest(**options)


class ScriptedLoadableModuleWidget:
    """Base class of a module's panel; the application gives it a parent, a script may leave it out."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = slicer.util.settingsValue("Developer/DeveloperMode", False, converter=slicer.util.toBool)
        if not parent:
            self.parent = qMRMLWidget()
            self.parent.setLayout(QtWidgets.QVBoxLayout())
            self.parent.setMRMLScene(slicer.mrmlScene)
        else:
            self.parent = parent
        self.layout = self.parent.layout()
        if not parent:
            self.setup()
            self.parent.show()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def setup(self) -> None:
        """Nothing to prepare: the developer's section is not modelled."""

    def cleanup(self) -> None:
        """Nothing to release."""

    def resourcePath(self, name: str) -> str:
        """A file below the module's Resources, in the folder from which the application loaded the module."""
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / name)

    def _onModuleAboutToBeUnloaded(self, moduleName: str) -> None:
        if moduleName == self.moduleName:
            self.cleanup()
            manager = slicer.app.moduleManager()
            manager.disconnect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)


class ScriptedLoadableModuleLogic:
    """Base class of a module's logic."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> Any:
        """The module's one parameter node in the scene; created when there is none."""
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            return slicer.mrmlScene.AddNode(self.createParameterNode())
        # Closing a scene resets the node and may remove the attribute.
        if node.GetAttribute("ModuleName") != self.moduleName:
            node.SetAttribute("ModuleName", self.moduleName)
        return node

    def createParameterNode(self) -> Any:
        """A new node, not yet in the scene."""
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """Base class of a module's self-test. Its own constructor calls that of the bases after `TestCase`, too."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        super(unittest.TestCase, self).__init__()
        self.enableScreenshots = False

    def runTest(self) -> None:
        """A module overrides it."""
