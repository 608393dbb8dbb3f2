"""The buttons Self-test and Import weights of the section Advanced."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
from DiffusionSegmentBackend.protocol.messages import Imported, ImportModel, SelfTest, SelfTestReport

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


def _lines(report: dict[str, Any]) -> list[str]:
    """The lines that show the report of a self-test."""
    memory, free = report["free_memory_bytes"], wording.SELF_TEST_MEMORY_UNKNOWN
    if memory is not None:
        free = wording.SELF_TEST_MEMORY.format(gigabytes=memory / _GIGABYTE)
    lines = [
        wording.SELF_TEST_NO_TORCH,
        wording.SELF_TEST_DRIVER.format(driver=report["driver"]) if report["driver"] else wording.SELF_TEST_NO_DRIVER,
        free,
        wording.SELF_TEST_VERSION.format(version=report["software"], python=report["python"]),
    ]
    if report["torch"]:
        lines[0] = wording.SELF_TEST_DEVICE.format(device=report["device"], gflops=report["gflops"])
        lines.insert(1, wording.SELF_TEST_TORCH.format(version=report["torch"], build=report["build"]))
    if report["missing"]:
        lines.append(wording.SELF_TEST_MISSING.format(packages=", ".join(report["missing"])))
    return [*lines, *(f"⚠ {sentence}" for sentence in report["advice"])]
