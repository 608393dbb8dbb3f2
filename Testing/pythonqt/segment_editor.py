"""Stand-in for qMRMLSegmentEditorWidget around the real vtkSlicerSegmentEditorLogic of slicer-core.

The real widget passes its selections to that logic and keeps them in a vtkMRMLSegmentEditorNode. Until it has been
given one it refuses every selection; closing a scene with its singletons removes the node. Which segment is
chosen when a segmentation is set, and what is left of a selection whose node was removed, is decided by the real logic.
The widget has its keyboard shortcuts and observes the views until they are removed by a call, and an active effect
still receives mouse clicks in the views while another module is open.
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
        """Activate an effect; it observes the views."""
        self._effect = name
        self._views = True

    def setActiveEffect(self, effect: None) -> None:
        """Deactivate the effect; the stand-in has no objects of effects."""
        assert effect is None
        self._effect = ""

    def activeEffectName(self) -> str:
        """The active effect, "" for none. Not the real widget's name: `activeEffect()` returns an object there."""
        return self._effect

    def installKeyboardShortcuts(self) -> None:
        """Digits choose effects, Ctrl+Z undoes, in the whole main window."""
        self._shortcuts = True

    def uninstallKeyboardShortcuts(self) -> None:
        """Remove the shortcuts."""
        self._shortcuts = False

    def removeViewObservations(self) -> None:
        """Stop observing the views."""
        self._views = False

    def updateWidgetFromMRML(self) -> None:
        """Update from node and scene."""
        self._accepts()
