"""Segmentation by a model of another program (nnU-Net v2, MONAI), which is then chosen for a review."""

from collections.abc import Callable
from typing import Any

import qt
from DiffusionSegmentBackend.protocol.messages import Presegmented

from ..scene.presegmentation import putPresegmentation
from ..worker.client import WorkerClient
from . import wording
from .model_selector import ModelSelector
from .panel_context import PanelContext, offer
from .run_controller import RunController


def chooseModelFolder() -> str:
    """Ask for the folder of a model; empty if the user cancels."""
    return str(qt.QFileDialog.getExistingDirectory(None, wording.PRESEGMENTER_TITLE, "") or "")


class PresegmentationPanel:
    """Connects the button *Run nnU-Net or MONAI*: asks for a folder, puts the answer into the scene."""

    def __init__(
        self,
        ui: Any,
        client: WorkerClient,
        context: PanelContext,
        models: ModelSelector,
        run: RunController,
        chooseFolder: Callable[[], str] = chooseModelFolder,
    ) -> None:
        self.chooseFolder = chooseFolder
        self._ui = ui
        self._client = client
        self._context = context
        self._models = models
        self._run = run
        ui.presegmentButton.clicked.connect(self.onPresegment)
        self.update()

    def update(self) -> None:
        """Follow the input volume and the state of the worker."""
        reason = self._models.missing() or (wording.BUSY if self._client.running else "")
        offer(self._ui.presegmentButton, reason, wording.PRESEGMENT_TIP)

    def onPresegment(self) -> None:
        """Ask for the folder of a model, and request its segmentation of the input volume."""
        folder = self.chooseFolder()
        if folder:
            self._context.say("")
            self._context.guard(lambda: self._presegment(folder))
            self._context.update()

    def _presegment(self, folder: str) -> None:
        parameters, model = self._context.parameters, self._models.model
        if parameters is not None and parameters.inputVolume is not None and model is not None:
            self._run.presegment(parameters, model, folder)

    def onAnswer(self, answer: Presegmented) -> None:
        """Put the segmentation into the scene, and choose it for a review of its scan."""
        run, parameters = self._run.input, self._context.parameters
        if run is None or parameters is None:
            return
        node = putPresegmentation(run.volume.GetScene(), answer, run.volume, run.model.labels)
        if parameters.inputVolume is run.volume:
            parameters.reviewedSegmentation = node
        self._context.say("\n".join([wording.PRESEGMENTED.format(name=node.GetName()), *answer.warnings]))
