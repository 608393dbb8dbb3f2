"""Learn from this case: fine-tune a user model on the visible segments."""

from collections.abc import Callable
from typing import Any

import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.messages import FineTune, FineTuned

from ..scene.installed_models import installedModels
from ..scene.segmented_scan import SegmentedScan
from ..scene.user_segments import readUserSegments
from ..scene.volumes import scanVersion, volumeBuffer
from ..worker.client import WorkerClient
from . import wording
from .panel_context import PanelContext, offer


class FineTunePanel:
    """Connects the section "Learn from this case"; `modelAdded` is called with the name of a new model."""

    def __init__(self, ui: Any, client: WorkerClient, context: PanelContext, modelAdded: Callable[[str], None]) -> None:
        self._ui = ui
        self._client = client
        self._context = context
        self._modelAdded = modelAdded
        ui.fineTuneLabel.text = wording.FINE_TUNE_HELP
        ui.fineTuneNameEdit.textChanged.connect(self.onName)
        ui.fineTuneButton.clicked.connect(self.onFineTune)
        self.update()

    def update(self) -> None:
        """Update whether the button is enabled."""
        reason = wording.BUSY if self._client.running else self._missing()
        offer(self._ui.fineTuneButton, reason, wording.FINE_TUNE_TIP)

    def _missing(self) -> str:
        parameters = self._context.parameters
        if parameters is None or parameters.inputVolume is None:
            return wording.NO_INPUT
        if parameters.segmentation is None:
            return wording.NO_SEGMENTATION
        return "" if self._name else wording.NO_NAME

    @property
    def _name(self) -> str:
        return str(self._ui.fineTuneNameEdit.text).strip()

    def onName(self, _: str) -> None:
        """The name was edited."""
        self.update()

    def onFineTune(self) -> None:
        """Send the visible segments to the worker."""
        self._context.guard(self._fineTune)
        self._context.update()

    def _fineTune(self) -> None:
        parameters, name = self._context.parameters, self._name
        if parameters is None or self._missing() or self._client.running:
            return
        if name in installedModels():
            raise DiffusionSegmentError(
                ErrorCode.OPTION, wording.NAME_TAKEN.format(name=name), hint=wording.ANOTHER_NAME
            )
        segments = readUserSegments(self._scan(parameters.inputVolume, parameters.segmentation))
        array, geometry = volumeBuffer(parameters.inputVolume)
        self._context.begin(wording.STARTING)
        self._client.request(
            FineTune,
            array,
            geometry,
            version=scanVersion(parameters.inputVolume),
            maps={"labels": segments.labels},
            model=parameters.model,
            device=parameters.device.value,
            names=segments.names,
            name=name,
            minutes=float(parameters.fineTuneMinutes),
        )

    def _scan(
        self, inputNode: slicer.vtkMRMLScalarVolumeNode, segmentation: slicer.vtkMRMLSegmentationNode
    ) -> SegmentedScan:
        """The shown scan, whose label definitions are known, or the chosen nodes without label definitions."""
        scan = self._context.scan
        if scan is not None and scan.input is inputNode and scan.segmentation is segmentation:
            return scan
        return SegmentedScan(inputNode, segmentation, ())

    def onAnswer(self, answer: FineTuned) -> None:
        """The new model is installed: choose it and show a message."""
        self._modelAdded(answer.name)
        titles = ", ".join(organ.title for organ in answer.report.organs)
        self._context.say(wording.MODEL_SAVED.format(model=answer.name, organs=titles, seconds=answer.report.seconds))
