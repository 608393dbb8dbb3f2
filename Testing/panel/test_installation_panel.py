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
from DiffusionSegmentBackend.schema.report import Report
from DiffusionSegmentBackend.training.fine_tuned_model import label_entries
from DiffusionSegmentLib.worker.client import WorkerClient
from fixtures.fine_tuning_models import BASE, install_base
from pythonqt.slicer_application import Application

MODULE = Path(__file__).resolve().parents[2] / "DiffusionSegment"


class PanelContext:
    """What the panel around would do: tell, and remember."""

    parameters = None
    scan = result = None

    def __init__(self) -> None:
        self.said: list[str] = []
        self.begun: list[str] = []

    def guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except DiffusionSegmentError as error:
            self.said.append(str(error))

    def say(self, text: str) -> None:
        self.said.append(text)

    def begin(self, text: str) -> None:
        self.begun.append(text)

    def update(self) -> None: ...
    def regionChanged(self) -> None: ...
    def organStatesChanged(self) -> None: ...
    def reportChanged(self, report: Report | None) -> None: ...


class Bench:
    """The two buttons of the real .ui, and a worker that is warm for all tests."""

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
    """A place for models of the user's own, outside the extension's folder, with a base model."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFUSION_SEGMENT_MODELS", str(folder))
        install_base(folder)
        yield folder


@pytest.fixture(scope="module")
def bench(application: Application, models: Path) -> Iterator[Bench]:
    created = Bench(application)
    yield created
    created.client.close()


@pytest.fixture
def said(bench: Bench) -> list[str]:
    bench.stub.said.clear()
    bench.models.clear()
    bench.chosen = ""
    return bench.stub.said


@pytest.fixture(scope="module")
def exported(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A taught model as it comes from a colleague, as a zip file and as a folder beside it; not installed."""
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


def test_the_self_test_shows_device_torch_driver_memory_and_speed(bench: Bench, said: list[str]) -> None:
    label = bench.ui.selfTestLabel
    assert not label.isVisibleTo(label.parentWidget())
    bench.click(bench.ui.selfTestButton)
    lines = label.text.splitlines()
    assert said == []
    assert "billion operations per second" in lines[0]
    assert f"PyTorch {torch.__version__} for " in lines[1]
    assert "NVIDIA card" in lines[2]
    assert "memory" in lines[3]
    assert "Python 3." in lines[4]
    assert label.isVisibleTo(label.parentWidget())


def test_a_self_test_can_be_cancelled_like_any_run(bench: Bench, said: list[str]) -> None:
    def cancel(_: object) -> None:
        bench.client.cancel()

    bench.client.progress.connect(cancel)
    bench.click(bench.ui.selfTestButton)
    bench.client.progress.disconnect(cancel)
    assert said == ["cancelled"]


def test_both_buttons_say_why_they_wait(bench: Bench, said: list[str]) -> None:
    bench.ui.selfTestButton.click()
    bench.panel.update()
    assert not bench.ui.importButton.enabled
    assert bench.ui.importButton.toolTip == "A run is in progress."
    bench.wait()
    bench.panel.update()
    assert bench.ui.importButton.enabled
    assert "manifest.json" in bench.ui.importButton.toolTip


def test_a_zip_file_is_installed_outside_the_extension(
    bench: Bench, said: list[str], exported: Path, nothingInstalled: Path
) -> None:
    bench.chosen = str(exported)
    bench.click(bench.ui.importButton)
    assert said == ["The model mine was installed."]
    assert bench.models == ["mine"]
    assert (nothingInstalled / "mine" / "probe.safetensors").is_file()
    assert not (MODULE / "Resources" / "Models" / "mine").exists()


def test_a_folder_is_chosen_by_its_manifest(
    bench: Bench, said: list[str], exported: Path, nothingInstalled: Path
) -> None:
    bench.chosen = str(exported.with_name("mine") / "manifest.json")
    bench.click(bench.ui.importButton)
    assert bench.models == ["mine"]
    assert (nothingInstalled / "mine" / "probe.safetensors").is_file()


def test_a_changed_weight_is_refused_and_nothing_is_installed(
    bench: Bench, said: list[str], exported: Path, nothingInstalled: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(exported.with_name("mine"), changed)
    weights = bytearray((changed / "probe.safetensors").read_bytes())
    weights[-1] ^= 1
    (changed / "probe.safetensors").write_bytes(weights)
    bench.chosen = str(changed / "manifest.json")
    bench.click(bench.ui.importButton)
    assert [text.partition(":")[0] for text in said] == ["WEIGHTS_CORRUPT"]
    assert bench.models == []
    assert not (nothingInstalled / "mine").exists()


def test_what_is_no_model_is_reported(bench: Bench, said: list[str], tmp_path: Path) -> None:
    (tmp_path / "notes.zip").write_text("no zip", encoding="utf-8")
    bench.chosen = str(tmp_path / "notes.zip")
    bench.click(bench.ui.importButton)
    assert said[0].startswith("INPUT_UNREADABLE")


def test_who_closes_the_file_dialog_changes_nothing(bench: Bench, said: list[str]) -> None:
    begun = len(bench.stub.begun)
    bench.click(bench.ui.importButton)
    assert (said, bench.models, len(bench.stub.begun)) == ([], [], begun)
