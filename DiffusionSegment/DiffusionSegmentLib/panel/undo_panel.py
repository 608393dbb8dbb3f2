"""Undo and redo of what the module did to the shown segmentation, by name."""

from collections.abc import Callable
from typing import Any

import slicer

from ..scene.history import History, Snapshot, StepName
from ..scene.segmented_scan import SegmentedScan
from ..worker.client import WorkerClient
from . import wording
from .panel_context import PanelContext, offer


class UndoPanel:
    """Connects the buttons Undo and Redo to one history for each segmentation.

    `restored` is called after a step was undone or redone, when the review of the segmentation must be read again.
    """

    def __init__(self, ui: Any, client: WorkerClient, context: PanelContext, restored: Callable[[], None]) -> None:
        self._ui = ui
        self._client = client
        self._context = context
        self._restored = restored
        self._histories: dict[str, History] = {}
        ui.undoButton.clicked.connect(self.onUndo)
        ui.redoButton.clicked.connect(self.onRedo)
        self.update()

    @property
    def history(self) -> History:
        """The history of the shown segmentation."""
        scan = self._context.scan
        return self._histories.setdefault(scan.segmentation.GetID() if scan is not None else "", History())

    def dropDeleted(self) -> None:
        """Drop the histories of segmentations that were deleted."""
        scene = slicer.mrmlScene
        self._histories = {key: h for key, h in self._histories.items() if key and scene.GetNodeByID(key) is not None}

    def dropAll(self) -> None:
        """Drop all histories: the scene closes, and the next may hold a segmentation of the same id."""
        self._histories.clear()

    def record(self, name: StepName, before: Snapshot) -> None:
        """A step on the shown segmentation is done."""
        scan = self._context.scan
        if scan is not None:
            self.history.record(name, scan, before)
            self.update()

    def update(self) -> None:
        """Update the texts of the buttons, and whether they are enabled."""
        shown = self._context.scan is not None
        reason = wording.BUSY if self._client.running else "" if shown else wording.NO_RESULT
        undo, redo = (self.history.undoText, self.history.redoText) if shown else (None, None)
        for button, text, name, nothing in (
            (self._ui.undoButton, undo, wording.UNDO, wording.NOTHING_TO_UNDO),
            (self._ui.redoButton, redo, wording.REDO, wording.NOTHING_TO_REDO),
        ):
            offer(button, reason or ("" if text else nothing), text or name)
            button.text = text or name

    def onUndo(self) -> None:
        """Undo the last step."""
        self._step(self.history.undo)

    def onRedo(self) -> None:
        """Redo the step that was undone last."""
        self._step(self.history.redo)

    def _step(self, step: Callable[[SegmentedScan], StepName | None]) -> None:
        scan = self._context.scan
        if scan is None or self._client.running:
            return

        def restore() -> None:
            step(scan)
            self._restored()
            self.update()
            self._context.reportChanged(None)

        self._context.guard(restore)
