"""Learn from this case: the segments on the screen become a model of the reader's own."""

from collections.abc import Callable
from typing import Any

import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.messages import Taught, Teach

from ..scene.installed_models import installedModels
from ..scene.labelled_scan import LabelledScan
from ..scene.own_segments import readOwnSegments
from ..scene.volumes import scanVersion, volumeBuffer
from ..worker.client import WorkerClient
from . import wording
from .desk import Desk, offer


class TeachPanel:
    """Binds the section "Learn from this case" to the segmentation chosen; `modelTaught` is told a new model's name."""

    def __init__(self, ui: Any, client: WorkerClient, desk: Desk, modelTaught: Callable[[str], None]) -> None:
        self._ui = ui
        self._client = client
        self._desk = desk
        self._modelTaught = modelTaught
        ui.teachLabel.text = wording.TEACH_WHAT
        ui.teachNameEdit.textChanged.connect(self.onName)
        ui.teachButton.clicked.connect(self.onTeach)
        self.update()

    def update(self) -> None:
        """Enable what can be done now; what cannot says why."""
        why = wording.BUSY if self._client.running else self._whatIsMissing()
        offer(self._ui.teachButton, why, wording.TEACH_TIP)

    def _whatIsMissing(self) -> str:
        parameters = self._desk.parameters
        if parameters is None or parameters.inputVolume is None:
            return wording.NO_INPUT
        if parameters.segmentation is None:
            return wording.NO_SEGMENTATION
        return "" if self._name else wording.NO_NAME

    @property
    def _name(self) -> str:
        return str(self._ui.teachNameEdit.text).strip()

    def onName(self, _: str) -> None:
        """The name was edited."""
        self.update()

    def onTeach(self) -> None:
        """Send the visible segments to the worker."""
        self._desk.guard(self._teach)
        self._desk.update()

    def _teach(self) -> None:
        parameters, name = self._desk.parameters, self._name
        if parameters is None or self._whatIsMissing() or self._client.running:
            return
        if name in installedModels():
            raise DiffusionSegmentError(
                ErrorCode.OPTION, wording.NAME_TAKEN.format(name=name), hint=wording.ANOTHER_NAME
            )
        own = readOwnSegments(self._scan(parameters.inputVolume, parameters.segmentation))
        array, geometry = volumeBuffer(parameters.inputVolume)
        self._desk.begin(wording.STARTING)
        self._client.request(
            Teach,
            array,
            geometry,
            version=scanVersion(parameters.inputVolume),
            maps={"labels": own.labels},
            model=parameters.model,
            device=parameters.device.value,
            names=own.names,
            name=name,
            minutes=float(parameters.teachMinutes),
        )

    def _scan(
        self, inputNode: slicer.vtkMRMLScalarVolumeNode, segmentation: slicer.vtkMRMLSegmentationNode
    ) -> LabelledScan:
        """The scan on the desk, which knows the organs' names, else the nodes chosen without names."""
        scan = self._desk.scan
        if scan is not None and scan.input is inputNode and scan.segmentation is segmentation:
            return scan
        return LabelledScan(inputNode, segmentation, ())

    def onAnswer(self, answer: Taught) -> None:
        """The new model is installed: tell of it, and have it chosen."""
        self._modelTaught(answer.name)
        titles = ", ".join(str(organ["title"]) for organ in answer.report.get("organs", []))
        seconds = float(answer.report.get("seconds", 0.0))
        self._desk.say(wording.TAUGHT.format(model=answer.name, organs=titles, seconds=seconds))
