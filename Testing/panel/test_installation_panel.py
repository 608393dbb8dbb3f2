"""Self-test and import of weights: two buttons, the real worker behind them."""

from __future__ import annotations

import shutil
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import slicer.util
import torch
from DiffusionSegmentBackend.errors import DiffusionSegmentError
from DiffusionSegmentBackend.models.manifest import read_description
from DiffusionSegmentBackend.models.user_models import export_model, save_user_model
from DiffusionSegmentBackend.networks.probe import Probe
from DiffusionSegmentBackend.protocol.messages import Imported, SelfTestReport
from DiffusionSegmentBackend.training.fine_tuned_model import label_entries
from DiffusionSegmentLib.worker.client import WorkerClient
from fixtures.fine_tuning_models import BASE, install_base
from pythonqt.slicer_application import Application

MODULE = Path(__file__).resolve().parents[2] / "DiffusionSegment"


class PanelContext:
    """Context that records the messages of the panel."""

    parameters = None
    scan = result = None

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.begun: list[str] = []

    def guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except DiffusionSegmentError as error:
            self.messages.append(str(error))

    def say(self, text: str) -> None:
        self.messages.append(text)

    def begin(self, text: str) -> None:
        self.begun.append(text)

    def update(self) -> None: ...
    def regionChanged(self) -> None: ...
    def organStatesChanged(self) -> None: ...
    def reportChanged(self, report: dict[str, Any] | None) -> None: ...


class InstallationPanelHarness:
    """The two buttons of the real .ui, and one worker process for all tests."""

    def __init__(self, application: Application) -> None:
        from DiffusionSegmentLib.panel.installation_panel import InstallationPanel
        from DiffusionSegmentLib.worker.transport import QProcessTransport, processEvents

        self._processEvents = processEvents
        self.widget = slicer.util.loadUI(str(MODULE / "Resources" / "UI" / "DiffusionSegment.ui"))
        self.ui: types.SimpleNamespace = slicer.util.childWidgetVariables(self.widget)
        self.client = WorkerClient(QProcessTransport)
        self.stub = PanelContext()
        self.models: list[str] = []
        self.chosen = ""
        self.panel = InstallationPanel(self.ui, self.client, self.stub, self.models.append, lambda: self.chosen)
        answers = {SelfTestReport: self.panel.onSelfTestReport, Imported: self.panel.onImported}
        self.client.finished.connect(lambda answer: answers[type(answer)](answer))
        self.client.failed.connect(lambda _, error: self.stub.say(str(error)))
        self.client.cancelled.connect(lambda _: self.stub.say("cancelled"))

    def click(self, button: Any, seconds: float = 60.0) -> None:
        button.click()
        self.wait(seconds)

    def wait(self, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while self.client.running:
            assert time.monotonic() < end
            self._processEvents()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for the user's own models outside the extension's folder, with a base model."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFUSION_SEGMENT_MODELS", str(folder))
        install_base(folder)
        yield folder


@pytest.fixture(scope="module")
def harness(application: Application, models: Path) -> Iterator[InstallationPanelHarness]:
    created = InstallationPanelHarness(application)
    yield created
    created.client.close()


@pytest.fixture
def messages(harness: InstallationPanelHarness) -> list[str]:
    harness.stub.messages.clear()
    harness.models.clear()
    harness.chosen = ""
    return harness.stub.messages


@pytest.fixture(scope="module")
def exported(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported fine-tuned model as a zip file and as a folder beside it; not installed."""
    base = read_description(models / BASE)
    probe = Probe([8, 8, 16], 2, hidden=8)
    torch.nn.init.constant_(probe.head.weight, 0.5)
    anatomy = {"min_organ_ml": 0.0, "min_confidence": 0.0}
    folder = save_user_model("mine", probe, base=base, labels=label_entries({1: "my cyst"}, base), anatomy=anatomy)
    path = tmp_path_factory.mktemp("from a colleague") / "mine.zip"
    export_model("mine", path)
    shutil.move(folder, path.with_name("mine"))
    return path


@pytest.fixture
def nothingInstalled(models: Path) -> Path:
    shutil.rmtree(models / "mine", ignore_errors=True)
    return models


def test_the_self_test_shows_device_torch_driver_memory_and_speed(
    harness: InstallationPanelHarness, messages: list[str]
) -> None:
    label = harness.ui.selfTestLabel
    assert not label.isVisibleTo(label.parentWidget())
    harness.click(harness.ui.selfTestButton)
    lines = label.text.splitlines()
    assert messages == []
    assert "billion operations per second" in lines[0]
    assert f"PyTorch {torch.__version__} for " in lines[1]
    assert "NVIDIA card" in lines[2]
    assert "memory" in lines[3]
    assert "Python 3." in lines[4]
    assert label.isVisibleTo(label.parentWidget())


def test_a_self_test_can_be_cancelled(harness: InstallationPanelHarness, messages: list[str]) -> None:
    def cancel(_: object) -> None:
        harness.client.cancel()

    harness.client.progress.connect(cancel)
    harness.click(harness.ui.selfTestButton)
    harness.client.progress.disconnect(cancel)
    assert messages == ["cancelled"]


def test_both_disabled_buttons_show_the_reason(harness: InstallationPanelHarness, messages: list[str]) -> None:
    harness.ui.selfTestButton.click()
    harness.panel.update()
    assert not harness.ui.importButton.enabled
    assert harness.ui.importButton.toolTip == "A run is in progress."
    harness.wait()
    harness.panel.update()
    assert harness.ui.importButton.enabled
    assert "manifest.json" in harness.ui.importButton.toolTip


def test_a_zip_file_is_installed_outside_the_extension(
    harness: InstallationPanelHarness, messages: list[str], exported: Path, nothingInstalled: Path
) -> None:
    harness.chosen = str(exported)
    harness.click(harness.ui.importButton)
    assert messages == ["The model mine was installed."]
    assert harness.models == ["mine"]
    assert (nothingInstalled / "mine" / "probe.safetensors").is_file()
    assert not (MODULE / "Resources" / "Models" / "mine").exists()


def test_a_folder_is_chosen_by_its_manifest(
    harness: InstallationPanelHarness, messages: list[str], exported: Path, nothingInstalled: Path
) -> None:
    harness.chosen = str(exported.with_name("mine") / "manifest.json")
    harness.click(harness.ui.importButton)
    assert harness.models == ["mine"]
    assert (nothingInstalled / "mine" / "probe.safetensors").is_file()


def test_changed_weights_are_refused_and_nothing_is_installed(
    harness: InstallationPanelHarness, messages: list[str], exported: Path, nothingInstalled: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(exported.with_name("mine"), changed)
    weights = bytearray((changed / "probe.safetensors").read_bytes())
    weights[-1] ^= 1
    (changed / "probe.safetensors").write_bytes(weights)
    harness.chosen = str(changed / "manifest.json")
    harness.click(harness.ui.importButton)
    assert [text.partition(":")[0] for text in messages] == ["WEIGHTS_CORRUPT"]
    assert harness.models == []
    assert not (nothingInstalled / "mine").exists()


def test_a_file_that_is_no_model_is_reported(
    harness: InstallationPanelHarness, messages: list[str], tmp_path: Path
) -> None:
    (tmp_path / "notes.zip").write_text("no zip", encoding="utf-8")
    harness.chosen = str(tmp_path / "notes.zip")
    harness.click(harness.ui.importButton)
    assert messages[0].startswith("INPUT_UNREADABLE")


def test_closing_the_file_dialog_changes_nothing(harness: InstallationPanelHarness, messages: list[str]) -> None:
    begun = len(harness.stub.begun)
    harness.click(harness.ui.importButton)
    assert (messages, harness.models, len(harness.stub.begun)) == ([], [], begun)
