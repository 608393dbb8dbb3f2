"""Stand-ins for the ctk and qMRML widgets that the panel uses, with their properties, signals and plausible looks.

What the real ones do, and whether it is modelled:
- ctkCollapsibleButton hides its children one by one while it is collapsed, also those that are shown meanwhile, and
  leaves hidden what the program had hidden: modelled. Its animation and styles are not;
- ctkSliderWidget clamps a value to its range and rounds to its decimals, and emits once: modelled. Units are not;
- qMRMLWidget emits mrmlSceneChanged, which the form connects to its selectors: they get the scene directly here;
- qMRMLNodeComboBox leaves out nodes that are hidden from editors, lists subclasses unless showChildNodeTypes is off,
  falls back to none (where noneEnabled is off: to the first node) when the current node goes, emits no signal when the
  current node is set again, and follows names: modelled, but for renaming by the user and sorting;
- all of them are C++ objects in Slicer: `isinstance(widget, qt.QWidget)` is False there as it is here.
"""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtWidgets
from shiboken6 import isValid

from .qt_module import PythonQtObject
from .segment_editor import qMRMLSegmentEditorWidget


class ctkCollapsibleButton(PythonQtObject, QtWidgets.QWidget):
    """A header that hides and shows what lies below it; what the program itself has hidden stays so, as with ctk's."""

    contentsCollapsed = QtCore.Signal(bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._header = QtWidgets.QToolButton(self)
        self._header.setToolButtonStyle(QtCore.Qt.ToolButtonTextBesideIcon)
        self._header.setArrowType(QtCore.Qt.DownArrow)
        self._header.clicked.connect(lambda: self._setCollapsed(not self._collapsed))
        self._collapsed = False
        self._hiddenHere: list[QtWidgets.QWidget] = []

    def event(self, event: QtCore.QEvent) -> bool:
        """Reserve space for the header; hide children that arrive while collapsed."""
        if event.type() in (QtCore.QEvent.Resize, QtCore.QEvent.LayoutRequest, QtCore.QEvent.Show):
            self._header.setGeometry(0, 0, self.size.width(), 24)
            layout = self.layout()
            if layout is not None:
                layout.setContentsMargins(9, 30, 9, 6)
            self._apply()
        return super().event(event)

    def _apply(self) -> None:
        if self._collapsed:
            for child in self.children():
                if isinstance(child, QtWidgets.QWidget) and child is not self._header and not child.isHidden():
                    self._hiddenHere.append(child)
                    child.setVisible(False)
        else:
            while self._hiddenHere:
                self._hiddenHere.pop().setVisible(True)
        QtWidgets.QWidget.setMaximumHeight(self, 24 if self._collapsed else 16777215)
        QtWidgets.QWidget.setMinimumHeight(self, 24)

    def _setCollapsed(self, collapsed: bool) -> None:
        self._collapsed = collapsed
        self._header.setArrowType(QtCore.Qt.RightArrow if collapsed else QtCore.Qt.DownArrow)
        self._apply()
        self.contentsCollapsed(collapsed)

    def _setText(self, text: str) -> None:
        self._header.setText(text)
        self._header.setSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Fixed)

    text = QtCore.Property(str, lambda self: self._header.text(), _setText)
    collapsed = QtCore.Property(bool, lambda self: self._collapsed, _setCollapsed)


class ctkSliderWidget(PythonQtObject, QtWidgets.QWidget):
    """A slider with a spin box."""

    valueChanged = QtCore.Signal(float)
    _STEPS = 1000

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Horizontal)
        self._slider.setRange(0, self._STEPS)
        self._box = QtWidgets.QDoubleSpinBox()
        self._box.setDecimals(2)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._box)
        self._slider.valueChanged.connect(self._onSlider)
        self._box.valueChanged.connect(self._onBox)

    def _onSlider(self, position: int) -> None:
        span = self._box.maximum() - self._box.minimum()
        self._box.setValue(self._box.minimum() + span * position / self._STEPS)

    def _onBox(self, value: float) -> None:
        span = (self._box.maximum() - self._box.minimum()) or 1
        self._slider.blockSignals(True)
        self._slider.setValue(round((value - self._box.minimum()) / span * self._STEPS))
        self._slider.blockSignals(False)
        self.valueChanged(value)

    value = QtCore.Property(float, lambda self: self._box.value(), lambda self, v: self._box.setValue(v))
    minimum = QtCore.Property(float, lambda self: self._box.minimum(), lambda self, v: self._box.setMinimum(v))
    maximum = QtCore.Property(float, lambda self: self._box.maximum(), lambda self, v: self._box.setMaximum(v))
    singleStep = QtCore.Property(float, lambda self: self._box.singleStep(), lambda self, v: self._box.setSingleStep(v))


class qMRMLWidget(PythonQtObject, QtWidgets.QWidget):
    """A widget that knows the scene and passes it on to its node selectors."""

    def setMRMLScene(self, scene: Any) -> None:
        """Give the scene to every node selector inside."""
        for child in self.findChildren(QtWidgets.QWidget):
            if isinstance(child, (qMRMLNodeComboBox, qMRMLSegmentEditorWidget)):
                child.setMRMLScene(scene)


class qMRMLNodeComboBox(PythonQtObject, QtWidgets.QComboBox):
    """Lists the scene's nodes of the given classes; follows nodes that come and go."""

    currentNodeChanged = QtCore.Signal(object)
    nodeAddedByUser = QtCore.Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._noneDisplay, self._baseName = "None", ""
        self._types: list[str] = []
        self._scene: Any = None
        self._ids: list[str | None] = []
        self._none = self._children = True
        self._unused = False
        self.currentIndexChanged.connect(lambda _: self.currentNodeChanged(self.currentNode()))

    def setMRMLScene(self, scene: Any) -> None:
        """Observe the scene."""
        self._scene = scene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent):
            scene.AddObserver(event, self._onSceneEvent)
        self._refresh()

    def _onSceneEvent(self, *_: Any) -> None:
        """A scene may outlive its widgets."""
        if isValid(self):
            self._refresh()

    def _refresh(self) -> None:
        chosen = self._ids[self.currentIndex] if 0 <= self.currentIndex < len(self._ids) else None
        nodes = [node for name in self._types for node in self._nodesOf(name)]
        self.blockSignals(True)
        self.clear()
        self._ids = [None, *(node.GetID() for node in nodes)]
        self.addItems([self._noneDisplay, *(node.GetName() for node in nodes)])
        self.setCurrentIndex(self._ids.index(chosen) if chosen in self._ids else 0)
        self.blockSignals(False)
        if chosen not in self._ids:
            self.currentNodeChanged(None)

    def _nodesOf(self, name: str) -> list[Any]:
        count = self._scene.GetNumberOfNodesByClass(name)
        nodes = [self._scene.GetNthNodeByClass(n, name) for n in range(count)]
        exact = [node for node in nodes if self._children or node.GetClassName() == name]
        return [node for node in exact if not node.GetHideFromEditors()]

    def currentNode(self) -> Any:
        """The chosen node, or None."""
        index = self.currentIndex
        node_id = self._ids[index] if 0 <= index < len(self._ids) else None
        return self._scene.GetNodeByID(node_id) if node_id else None

    def setCurrentNode(self, node: Any) -> None:
        """Choose a node."""
        self._refresh()
        wanted = node.GetID() if node is not None else None
        self.setCurrentIndex(self._ids.index(wanted) if wanted in self._ids else 0)

    def addNode(self) -> Any:
        """What its menu entry "Create new" does."""
        node = self._scene.AddNewNodeByClass(self._types[0], self._baseName)
        self.setCurrentNode(node)
        self.nodeAddedByUser(node)
        return node

    def _setTypes(self, names: list[str]) -> None:
        self._types = list(names)

    def _setNoneDisplay(self, text: str) -> None:
        self._noneDisplay = text

    def _setBaseName(self, name: str) -> None:
        self._baseName = name

    def _setChildren(self, value: bool) -> None:
        self._children = value

    def _setUnused(self, value: bool) -> None:
        self._unused = value

    nodeTypes = QtCore.Property("QStringList", lambda self: self._types, _setTypes)
    noneEnabled = QtCore.Property(bool, lambda self: self._none, lambda self, v: None)
    showChildNodeTypes = QtCore.Property(bool, lambda self: self._children, _setChildren)
    addEnabled = QtCore.Property(bool, lambda self: self._unused, _setUnused)
    removeEnabled = QtCore.Property(bool, lambda self: self._unused, _setUnused)
    renameEnabled = QtCore.Property(bool, lambda self: self._unused, _setUnused)
    noneDisplay = QtCore.Property(str, lambda self: self._noneDisplay, _setNoneDisplay)
    baseName = QtCore.Property(str, lambda self: self._baseName, _setBaseName)


CUSTOM = {
    cls.__name__: cls
    for cls in (
        *(ctkCollapsibleButton, ctkSliderWidget),
        *(qMRMLWidget, qMRMLNodeComboBox, qMRMLSegmentEditorWidget),
    )
}
