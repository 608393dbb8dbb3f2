"""Diffusion Segment: organs in CT by generative diffusion models (not diffusion MRI), and where to look twice."""

import sys
from pathlib import Path

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

_FOLDER = Path(__file__).resolve().parent
if str(_FOLDER) not in sys.path:
    sys.path.insert(0, str(_FOLDER))

from DiffusionSegmentLib.panel.segment_panel import SegmentPanel  # noqa: E402
from DiffusionSegmentLib.parameters import Parameters  # noqa: E402
from DiffusionSegmentLib.self_test import runSelfTest  # noqa: E402
from DiffusionSegmentLib.worker.client import WorkerClient  # noqa: E402
from DiffusionSegmentLib.worker.transport import QProcessTransport  # noqa: E402

MODELS_FOLDER = _FOLDER / "Resources" / "Models"


class DiffusionSegment(ScriptedLoadableModule):
    """Name, place and description of the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Diffusion Segment (AI)")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Segmentations"]
        self.parent.contributors = ["DiffusionSegment maintainers"]
        self.parent.helpText = _(
            "Segments organs in CT with generative diffusion models (not diffusion MRI) and shows where the result is "
            "uncertain. Runs on this computer; nothing is sent over the network. For research, not for diagnosis."
        )
        self.parent.acknowledgementText = _(
            "Builds on diffusion pretraining (Li et al. 2025), recycling training (Fu et al. 2023) and "
            "pre-segmentation sampling (Guo et al. 2022)."
        )


class DiffusionSegmentWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Shell of the panel: connects Slicer's life to `SegmentPanel`."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.panel = None
        self._parameterNode = None
        self._guiTag = None

    def setup(self):
        """Build the panel; nothing heavy is imported or started."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/DiffusionSegment.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = DiffusionSegmentLogic()
        self.panel = SegmentPanel(self.ui, self.logic.client, MODELS_FOLDER)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self.onNodeRemoved)
        self.initializeParameterNode()

    def cleanup(self):
        """The application or a reload ends the module: end the worker too."""
        self.setParameterNode(None)
        self.removeObservers()
        if self.logic is not None:
            self.logic.client.close()

    def enter(self):
        """The user opens the module."""
        self.initializeParameterNode()

    def initializeParameterNode(self):
        """Take the scene's parameter node; a first volume becomes the input."""
        if self._parameterNode is None:
            self.setParameterNode(self.logic.getParameterNode())
        if self._parameterNode.inputVolume is None:
            self._parameterNode.inputVolume = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")

    def setParameterNode(self, parameterNode):
        """Bind the widgets to another parameter node, or to none."""
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameterChanged)
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self._guiTag = parameterNode.connectGui(self.ui)
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameterChanged)
        if self.panel is not None:
            self.panel.setParameters(parameterNode)

    def onParameterChanged(self, caller, event):
        """A setting changed, in the panel or by a script."""
        self.panel.update()
        self.panel.onOverlayChanged()

    def onSceneStartClose(self, caller, event):
        """Let go of the scene's nodes."""
        self.setParameterNode(None)
        self.panel.onSceneClosing()

    def onSceneEndClose(self, caller, event):
        """Begin anew in the empty scene, if the panel is open."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeRemoved(self, caller, event, node):
        """Tell the panel of a node that leaves the scene."""
        self.panel.onNodeRemoved(node)


class DiffusionSegmentLogic(ScriptedLoadableModuleLogic):
    """What scripts use: a warm worker, and typed parameters."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self.client = WorkerClient(QProcessTransport)

    def getParameterNode(self):
        """The scene's parameters."""
        return Parameters(super().getParameterNode())


class DiffusionSegmentTest(ScriptedLoadableModuleTest):
    """Reload and Test: the worker starts and says hello."""

    def runTest(self):
        """Run the self-test in a clean scene."""
        slicer.mrmlScene.Clear()
        runSelfTest()
