"""The buttons Self-test and Import weights of the section Advanced."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
from DiffusionSegmentBackend.protocol.messages import Imported, ImportModel, SelfTest, SelfTestReport
from DiffusionSegmentBackend.schema.self_test_findings import SelfTestFindings

from ..worker.client import WorkerClient
from . import wording
from .panel_context import PanelContext, offer

_MANIFEST = "manifest.json"
_GIGABYTE = 1e9


def chooseModelFile() -> str:
    """Ask for a file; "" when the dialog is cancelled."""
    return str(qt.QFileDialog.getOpenFileName(None, wording.IMPORT_TITLE, "", wording.IMPORT_FILTER))


class InstallationPanel:
    """Connects *Self-test* and *Import weights…*; `modelImported` gets the name of a new model."""

    def __init__(
        self,
        ui: Any,
        client: WorkerClient,
        context: PanelContext,
        modelImported: Callable[[str], None],
        chooseFile: Callable[[], str] = chooseModelFile,
    ) -> None:
        self._ui = ui
        self._client = client
        self._context = context
        self._modelImported = modelImported
        self._chooseFile = chooseFile
        ui.selfTestButton.clicked.connect(self.onSelfTest)
        ui.importButton.clicked.connect(self.onImport)
        ui.selfTestLabel.visible = False
        self.update()

    def update(self) -> None:
        """Update which buttons are enabled."""
        for button, tip in (
            (self._ui.selfTestButton, wording.SELF_TEST_TIP),
            (self._ui.importButton, wording.IMPORT_TIP),
        ):
            offer(button, wording.BUSY if self._client.running else "", tip)

    def onSelfTest(self) -> None:
        """Request the self-test of the worker."""
        self._context.guard(self._selfTest)
        self._context.update()

    def _selfTest(self) -> None:
        parameters = self._context.parameters
        self._context.begin(wording.STARTING)
        self._client.ask(SelfTest, device=parameters.device.value if parameters is not None else "auto")

    def onSelfTestReport(self, answer: SelfTestReport) -> None:
        """Show the report of the self-test."""
        label = self._ui.selfTestLabel
        label.text = "\n".join(_lines(answer.report))
        label.visible = True

    def onImport(self) -> None:
        """Ask for a file; the worker checks and installs it."""
        self._context.guard(self._import)
        self._context.update()

    def _import(self) -> None:
        chosen = self._chooseFile()
        if not chosen:
            return
        path = Path(chosen)
        # Reading weights needs torch.
        self._client.prepare()
        self._context.begin(wording.STARTING)
        self._client.ask(ImportModel, path=str(path.parent if path.name == _MANIFEST else path))

    def onImported(self, answer: Imported) -> None:
        """A model was installed."""
        self._modelImported(answer.name)
        self._context.say(wording.IMPORTED.format(model=answer.name))


def _lines(found: SelfTestFindings) -> list[str]:
    """The lines that show the findings of a self-test."""
    memory, free = found.free_memory_bytes, wording.SELF_TEST_MEMORY_UNKNOWN
    if memory is not None:
        free = wording.SELF_TEST_MEMORY.format(gigabytes=memory / _GIGABYTE)
    lines = [
        wording.SELF_TEST_NO_TORCH,
        wording.SELF_TEST_DRIVER.format(driver=found.driver) if found.driver else wording.SELF_TEST_NO_DRIVER,
        free,
        wording.SELF_TEST_VERSION.format(version=found.software, python=found.python),
    ]
    if found.torch:
        lines[0] = wording.SELF_TEST_DEVICE.format(device=found.device, gflops=found.gflops)
        lines.insert(1, wording.SELF_TEST_TORCH.format(version=found.torch, build=found.build))
    if found.missing:
        lines.append(wording.SELF_TEST_MISSING.format(packages=", ".join(found.missing)))
    return [*lines, *(f"⚠ {sentence}" for sentence in found.advice)]
