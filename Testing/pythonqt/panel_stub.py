"""A minimal panel for tests of one of its parts, with the real .ui, parameters and worker client."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
import slicer.util
from DiffusionSegmentBackend.errors import DiffusionSegmentError
from DiffusionSegmentBackend.schema.report import Report

from .slicer_application import Application

UI = Path(__file__).resolve().parents[2] / "DiffusionSegment" / "Resources" / "UI" / "DiffusionSegment.ui"


class PanelStub:
    """The context of a part of the panel, with methods that click and wait; `engine` is the worker's command."""

    def __init__(self, application: Application, engine: list[str]) -> None:
        from DiffusionSegmentLib.parameters import connectWidgets, parametersOf
        from DiffusionSegmentLib.worker.client import WorkerClient
        from DiffusionSegmentLib.worker.transport import QProcessTransport

        application.clearScene()
        self.application = application
        self.frame = slicer.util.loadUI(str(UI))
        self.frame.setMRMLScene(slicer.mrmlScene)
        self.ui: Any = slicer.util.childWidgetVariables(self.frame)
        self.client = WorkerClient(lambda: QProcessTransport(engine))
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "parameters")
        self.parameters: Any = parametersOf(node)
        self.tag = connectWidgets(self.parameters, self.ui)
        self.scan: Any = None
        self.result: Any = None
        self.part: Any = None
        self.messages: list[str] = []
        self.begun = 0
        self.answers: list[Any] = []
        self.client.stateChanged.connect(lambda _: self.update())
        self.client.finished.connect(self._onFinished)
        self.client.cancelled.connect(lambda _: self._onEnd("cancelled"))
        self.client.failed.connect(lambda _, error: self._onEnd(f"{error.code.value}: {error.message} {error.hint}"))

    def close(self) -> None:
        """End the worker."""
        self.parameters.disconnectGui(self.tag)
        self.client.close()
        self.frame.close()

    def guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except DiffusionSegmentError as error:
            self.messages.append(f"{error.code.value}: {error.message} {error.hint}")

    def say(self, text: str) -> None:
        self.messages.append(text)

    def begin(self, text: str) -> None:
        self.begun += 1

    def update(self) -> None:
        if self.part is not None:
            self.part.update()

    def regionChanged(self) -> None:
        """Not observed."""

    def organStatesChanged(self) -> None:
        """Not observed."""

    def reportChanged(self, report: Report | None) -> None:
        """Not observed."""

    def _onFinished(self, answer: Any) -> None:
        self.answers.append(answer)
        self.guard(lambda: self.part.onAnswer(answer))
        self.client.release(answer)
        self.update()

    def _onEnd(self, words: str) -> None:
        self.messages.append(words)
        if hasattr(self.part, "forgetRequest"):
            self.part.forgetRequest()
        self.update()

    def click(self, button: Any) -> None:
        button.click()
        self.application.process()

    def until(self, done: Callable[[], Any], seconds: float = 60.0) -> None:
        """Process events until a condition is true."""
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, f"timed out; messages so far: {self.messages}"
            self.application.process()
            time.sleep(0.005)

    def rest(self) -> None:
        """Wait until no request is running or about to start: a timer of 0 ms may fire a moment after its start."""
        for _ in range(3):
            self.until(lambda: not self.client.running)
            time.sleep(0.01)
            self.application.process()
        self.until(lambda: not self.client.running)
