"""Diffusion Segment: organs in CT and MR by diffusion models (not diffusion MRI), and which regions to review."""

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

_FOLDER = Path(__file__).resolve().parent
if str(_FOLDER) not in sys.path:
    sys.path.insert(0, str(_FOLDER))

from DiffusionSegmentLib.panel import wording  # noqa: E402
from DiffusionSegmentLib.panel.installation_dialog import firstUse  # noqa: E402
from DiffusionSegmentLib.panel.scene_events import SceneEvents  # noqa: E402
from DiffusionSegmentLib.panel.segment_panel import SegmentPanel  # noqa: E402
from DiffusionSegmentLib.parameters import connectWidgets, parametersOf  # noqa: E402
from DiffusionSegmentLib.sample_data import registerSampleData  # noqa: E402
from DiffusionSegmentLib.scripting import Scripting  # noqa: E402
from DiffusionSegmentLib.self_test import runSelfTest  # noqa: E402
from DiffusionSegmentLib.worker.client import WorkerClient  # noqa: E402
from DiffusionSegmentLib.worker.server_choice import ServerChoice  # noqa: E402
from DiffusionSegmentLib.worker.transport import QProcessTransport, processEvents, transportOf  # noqa: E402


class DiffusionSegment(ScriptedLoadableModule):
    """Title, category and description of the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Diffusion Segment (AI)")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Segmentations"]
        self.parent.contributors = ["DiffusionSegment maintainers"]
        self.parent.helpText = wording.HELP
        self.parent.acknowledgementText = wording.ACKNOWLEDGEMENT
        slicer.app.connect("startupCompleted()", registerSampleData)


class DiffusionSegmentWidget(ScriptedLoadableModuleWidget, SceneEvents):
    """The module widget: connects events of the application and the scene to `SegmentPanel`."""

    def __init__(self, parent=None):
        # First, because Slicer's base class runs `setup` within its constructor when there is no parent.
        SceneEvents.__init__(self)
        self.logic = self._guiTag = None
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self):
        """Build the panel; nothing heavy is imported or started."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/DiffusionSegment.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = DiffusionSegmentLogic()
        self.logic.client.prepare = self.logic.server.preparation(firstUse(uiWidget))
        self.panel = SegmentPanel(self.ui, self.logic.client, self.logic.server)
        self.observeScene(slicer.mrmlScene)
        self.initializeParameterNode()

    def cleanup(self):
        """The application exits or the module is reloaded: end the worker."""
        self.setParameterNode(None)
        self.removeObservers()
        if self.panel is not None:
            self.panel.onSceneClosing()
            self.panel.server.close()
            self.panel.review.editor.exit()
        if self.logic is not None:
            self.logic.close()

    def enter(self):
        """The user opens the module."""
        self.initializeParameterNode()
        self.panel.review.editor.enter()

    def exit(self):
        """The user opens another module."""
        self.panel.review.editor.exit()

    def initializeParameterNode(self):
        """Use the parameter node of the scene; the first volume becomes the input."""
        if self._parameterNode is None:
            self.setParameterNode(self.logic.getParameterNode())
        if self._parameterNode.inputVolume is None:
            self._parameterNode.inputVolume = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")

    def setParameterNode(self, parameterNode):
        """Connect the widgets to another parameter node, or to none."""
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameterChanged)
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self._guiTag = connectWidgets(parameterNode, self.ui)
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameterChanged)
        if self.panel is not None:
            self.panel.setParameters(parameterNode)

    def onParameterChanged(self, caller, event):
        """A setting was changed in the panel or by a script."""
        self.panel.onParametersChanged()


class DiffusionSegmentLogic(ScriptedLoadableModuleLogic):
    """Functions for scripts, and the worker client of the panel."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self.server = ServerChoice()
        self.client = WorkerClient(lambda: transportOf(self.server))
        self.scripting = Scripting(lambda: WorkerClient(QProcessTransport), processEvents)

    def getParameterNode(self):
        """The parameters of the scene."""
        return parametersOf(super().getParameterNode())

    def segment(self, volumeNode, model="abdomen-ct", progress=None, **options):
        """Segment a volume and wait; see `Scripting.segment`."""
        return self.scripting.segment(volumeNode, model, progress, **options)

    def segmentAsync(self, volumeNode, model="abdomen-ct", progress=None, **options):
        """Start a segmentation and return at once; see `Scripting.segmentAsync`."""
        return self.scripting.segmentAsync(volumeNode, model, progress, **options)

    def presegment(self, volumeNode, folder, model="abdomen-ct", progress=None, **options):
        """Segment a volume with a model of another program and wait; see `Scripting.presegment`."""
        return self.scripting.presegment(volumeNode, folder, model, progress, **options)

    def review(self, volumeNode, segmentationNode, model="abdomen-ct", matches=None, progress=None, **options):
        """Review a segmentation from another source and wait; see `Scripting.review`."""
        return self.scripting.review(volumeNode, segmentationNode, model, matches, progress, **options)

    def segmentSequence(self, volumeNode, model="abdomen-ct", progress=None, **options):
        """Segment every frame of a sequence and wait; see `Scripting.segmentSequence`."""
        return self.scripting.segmentSequence(volumeNode, model, progress, **options)

    def close(self):
        """End the workers of the panel and of scripts."""
        self.client.close()
        self.scripting.close()


class DiffusionSegmentTest(ScriptedLoadableModuleTest):
    """Reload and Test: segment the phantom."""

    def runTest(self):
        """Run the self-test in a clean scene."""
        slicer.mrmlScene.Clear()
        runSelfTest()
