"""Scene events that the module widget handles: close, import, removal of nodes."""

from typing import Any

import slicer
import vtk
from slicer.util import VTKObservationMixin

from ..parameters import parametersOf


class SceneEvents(VTKObservationMixin):  # type: ignore[misc]
    """Base of the widget, which has `panel`, `parent`, `enter`, `setParameterNode` and `initializeParameterNode`."""

    def __init__(self) -> None:
        VTKObservationMixin.__init__(self)
        self.panel: Any = None
        self._parameterNode: Any = None
        self._orphaned = False

    @property
    def isShown(self) -> bool:
        """Whether the module is open; True for a widget that a script created without a module."""
        return bool(getattr(self.parent, "isEntered", True))

    def observeScene(self, scene: slicer.vtkMRMLScene) -> None:
        """Observe a scene until `removeObservers` is called."""
        for event, receiver in (
            (scene.StartCloseEvent, self.onSceneStartClose),
            (scene.EndCloseEvent, self.onSceneEndClose),
            (scene.EndImportEvent, self.onSceneEndImport),
            (scene.NodeAboutToBeRemovedEvent, self.onNodeRemoved),
            (scene.NodeRemovedEvent, self.onNodeGone),
        ):
            self.addObserver(scene, event, receiver)

    def onSceneStartClose(self, caller: Any, event: Any) -> None:
        """Release the nodes of the scene."""
        self.setParameterNode(None)
        self.panel.onSceneClosing()

    def onSceneEndClose(self, caller: Any, event: Any) -> None:
        """Start again in the empty scene, if the module is open."""
        if self.isShown:
            self.enter()

    def onSceneEndImport(self, caller: Any, event: Any) -> None:
        """A scene was loaded: show the result that it may contain.

        Slicer fills the parameter node before it reads the nodes that it refers to, and the typed parameters keep those
        values until the node is modified.
        """
        if self._parameterNode is not None:
            parametersOf(self._parameterNode.parameterNode)
            self._parameterNode.Modified()
            self.panel.setParameters(self._parameterNode)

    @vtk.calldata_type(vtk.VTK_OBJECT)  # type: ignore[untyped-decorator]
    def onNodeRemoved(self, caller: Any, event: Any, node: slicer.vtkMRMLNode) -> None:
        """Notify the panel of a node that is removed; release the parameters when it is their node."""
        self._orphaned = self._parameterNode is not None and node is self._parameterNode.parameterNode
        if self._orphaned:
            self.setParameterNode(None)
        self.panel.onNodeRemoved(node)

    def onNodeGone(self, caller: Any, event: Any) -> None:
        """The parameter node was deleted: create a new one for the open panel."""
        if self._orphaned and self.isShown and not caller.IsClosing():
            self.initializeParameterNode()
