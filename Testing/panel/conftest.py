"""The module's real panel in a fresh scene, with the real worker process around a quick engine."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from headless.slicer_picture import putVolume
from headless.views import SliceView
from pythonqt.slicer_application import Application

ENGINE = [sys.executable, "-u", str(Path(__file__).parent / "engine_process.py")]


@pytest.fixture(scope="session")
def application() -> Application:
    return Application()


@pytest.fixture
def axialView(application: Application) -> Iterator[SliceView]:
    """A view of the test's own: a test that clears the scene's singletons takes the nodes of every view with them."""
    view = SliceView(application.host, "Axial", "Axial", size=(240, 200))
    yield view
    view.close()


class PanelUser:
    """Drives the panel: clicks, waits for conditions and grabs widgets."""

    def __init__(self, application: Application) -> None:
        import DiffusionSegment as module

        self.application = application
        application.clearScene()
        self.module = module
        self.widget = application.openModule(module)
        self.ui = self.widget.ui
        self.useWorker(ENGINE)
        self.widget.parent.resize(420, 960)
        self.widget.parent.show()
        application.process()

    def useWorker(self, command: list[str] | None) -> None:
        from DiffusionSegmentLib.worker.transport import QProcessTransport

        self.widget.logic.client._createTransport = lambda: QProcessTransport(command)

    def until(self, done: Callable[[], Any], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, f"timed out; message of the panel: {self.ui.messageLabel.text}"
            self.application.process()
            time.sleep(0.005)

    def addVolume(self, array: np.ndarray | None = None, name: str = "CT") -> slicer.vtkMRMLScalarVolumeNode:
        from DiffusionSegmentBackend.imaging.volume import Volume

        array = np.arange(-500, 1300, dtype=np.int16).reshape(10, 12, 15) if array is None else array
        node = putVolume(slicer.mrmlScene, Volume(array, np.diag([-1.0, 1.5, 2.0, 1.0])), name)
        self.ui.inputSelector.setCurrentNode(node)
        self.application.process()
        return node

    def click(self, button: Any) -> None:
        button.click()
        self.application.process()

    def segment(self) -> None:
        self.click(self.ui.segmentButton)
        self.until(lambda: self.ui.segmentButton.text == "Segment")

    def segmentations(self) -> list[Any]:
        scene = slicer.mrmlScene
        count = scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")
        return [scene.GetNthNodeByClass(n, "vtkMRMLSegmentationNode") for n in range(count)]

    def grab(self, widget: Any = None) -> np.ndarray:
        """What is on the screen, RGB."""
        image = (
            (widget or self.widget.parent).grab().toImage().convertToFormat(self.application.qt.QImage.Format_RGB888)
        )
        rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
        return rows[:, : image.width() * 3].reshape(image.height(), image.width(), 3).copy()

    def save(self, name: str, folder: Path) -> None:
        self.widget.parent.grab().save(str(folder / f"{name}.png"))


@pytest.fixture
def user(application: Application) -> Iterator[PanelUser]:
    created = PanelUser(application)
    yield created
    created.widget.cleanup()
    created.widget.parent.close()
