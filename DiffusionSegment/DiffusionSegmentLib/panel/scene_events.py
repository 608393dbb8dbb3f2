"""What the module's widget hears of the scene: it closes, another is loaded, nodes go."""

from typing import Any

import slicer
import vtk
from slicer.util import VTKObservationMixin


class SceneEvents(VTKObservationMixin):
    """Base of the widget, which has `panel`, `parent`, `enter`, `setParameterNode` and `initializeParameterNode`."""

    def __init__(self) -> None:
        VTKObservationMixin.__init__(self)
        self.panel: Any = None
        self._parameterNode: Any = None
        self._orphaned = False

    @property
    def isShown(self) -> bool:
        """Whether the module is the one that is open; a widget that a script made has no module around it."""
        return bool(getattr(self.parent, "isEntered", True))

    def observeScene(self, scene: slicer.vtkMRMLScene) -> None:
        """Hear of what happens to a scene, until `removeObservers`."""
        for event, receiver in (
            (scene.StartCloseEvent, self.onSceneStartClose),
            (scene.EndCloseEvent, self.onSceneEndClose),
            (scene.EndImportEvent, self.onSceneEndImport),
            (scene.NodeAboutToBeRemovedEvent, self.onNodeRemoved),
            (scene.NodeRemovedEvent, self.onNodeGone),
        ):
            self.addObserver(scene, event, receiver)

    def onSceneStartClose(self, caller: Any, event: Any) -> None:
        """Let go of the scene's nodes."""
        self.setParameterNode(None)
        self.panel.onSceneClosing()

    def onSceneEndClose(self, caller: Any, event: Any) -> None:
        """Begin anew in the empty scene, if the panel is open."""
        if self.isShown:
            self.enter()

    def onSceneEndImport(self, caller: Any, event: Any) -> None:
        """A scene was loaded: go on with the result that it may hold.

        Slicer fills the parameter node before it reads the nodes that it refers to, and the typed parameters keep what
        they read then until the node says that it was modified.
        """
        if self._parameterNode is not None:
            self._parameterNode.Modified()
            self.panel.setParameters(self._parameterNode)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeRemoved(self, caller: Any, event: Any, node: slicer.vtkMRMLNode) -> None:
        """Tell the panel of a node that leaves the scene; let go of the parameters when it is theirs."""
        self._orphaned = self._parameterNode is not None and node is self._parameterNode.parameterNode
        if self._orphaned:
            self.setParameterNode(None)
        self.panel.onNodeRemoved(node)

    def onNodeGone(self, caller: Any, event: Any) -> None:
        """Somebody deleted the parameters: begin with new ones, or the open panel would be dead."""
        if self._orphaned and self.isShown and not caller.IsClosing():
            self.initializeParameterNode()
