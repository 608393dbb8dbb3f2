"""Stand-in for qMRMLSegmentEditorWidget around the real vtkSlicerSegmentEditorLogic of slicer-core.

The real widget hands its selections to that logic and keeps them in a vtkMRMLSegmentEditorNode. Until it has been
given one it refuses every selection; a scene that closes with its singletons takes the node away. Which segment is
chosen when a segmentation is set, and what is left of a selection whose node has gone, is the real logic's answer. It
installs its keyboard shortcuts and observes the views until it is told to leave them alone, and an active effect goes
on taking the mouse's clicks in the views while another module is open.
Not modelled: the effects themselves, the table of segments, masking.
"""

from __future__ import annotations

from typing import Any

import slicer
from PySide6 import QtWidgets

from .qt_module import PythonQtObject

_TOOLS = ("Paint", "Draw", "Erase", "Level tracing", "Scissors")


class qMRMLSegmentEditorWidget(PythonQtObject, QtWidgets.QWidget):
    """Which segmentation, volume and segment are being edited; its tools are drawn as a row of buttons."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for name in _TOOLS:
            layout.addWidget(QtWidgets.QToolButton(text=name))
        self._logic = slicer.vtkSlicerSegmentEditorLogic()
        self._effect = ""
        self._shortcuts = self._views = False

    def setMRMLScene(self, scene: Any) -> None:
        """Work in this scene."""
        self._logic.SetMRMLScene(scene)

    def setMRMLSegmentEditorNode(self, node: Any) -> None:
        """The node that keeps the editor's selections and settings."""
        self._logic.SetSegmentEditorNode(node)

    def mrmlSegmentEditorNode(self) -> Any:
        """The node that was set; None when it has left the scene."""
        node = self._logic.GetSegmentEditorNode()
        return node if node is not None and node.GetScene() is not None else None

    def setSegmentationNode(self, node: Any) -> None:
        """What is edited; None for nothing."""
        if self._accepts():
            self._logic.SetSegmentationNode(node)

    def segmentationNode(self) -> Any:
        """What is edited."""
        return self._logic.GetSegmentationNode() if self._accepts() else None

    def setSourceVolumeNode(self, node: Any) -> None:
        """The volume below."""
        if self._accepts():
            self._logic.SetSourceVolumeNode(node)

    def sourceVolumeNode(self) -> Any:
        """The volume below."""
        return self._logic.GetSourceVolumeNode() if self._accepts() else None

    def setCurrentSegmentID(self, segment: str) -> None:
        """Choose a segment, which must exist."""
        if not self._accepts() or self._logic.GetSegmentationNode() is None:
            print("qMRMLSegmentEditorWidget: need to set segment editor and segmentation nodes first")
            return
        assert self._logic.GetSegmentationNode().GetSegmentation().GetSegment(segment) is not None
        self._logic.SetCurrentSegmentID(segment)

    def currentSegmentID(self) -> str:
        """The chosen segment."""
        return self._logic.GetCurrentSegmentID() or "" if self._accepts() else ""

    def _accepts(self) -> bool:
        """Whether there is a node that a selection could be kept in; the real widget prints, too, and goes on."""
        if self.mrmlSegmentEditorNode() is None:
            print("qMRMLSegmentEditorWidget: need to set segment editor node first")
            return False
        return True

    def setActiveEffectByName(self, name: str) -> None:
        """Take up a tool; it observes the views."""
        self._effect = name
        self._views = True

    def setActiveEffect(self, effect: None) -> None:
        """Put the tool away; the stand-in has no effect to take up as an object."""
        assert effect is None
        self._effect = ""

    def activeEffectName(self) -> str:
        """The tool in use, "" for none. Not the real widget's name: `activeEffect()` returns an object there."""
        return self._effect

    def installKeyboardShortcuts(self) -> None:
        """Digits choose effects, Ctrl+Z undoes, in the whole main window."""
        self._shortcuts = True

    def uninstallKeyboardShortcuts(self) -> None:
        """Give the keys back."""
        self._shortcuts = False

    def removeViewObservations(self) -> None:
        """Leave the views alone."""
        self._views = False

    def updateWidgetFromMRML(self) -> None:
        """Show what node and scene say."""
        self._accepts()
