"""First use: nothing is installed without consent; the dialog states packages and sizes; failures are reported."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.worker import self_test
from DiffusionSegmentLib import installation
from DiffusionSegmentLib.installation import (
    REQUIREMENTS,
    InstallationPlan,
    SlicerInstallers,
    ensureInstalled,
    installedVersion,
    planInstallation,
)
from panel.conftest import PanelUser
from PySide6 import QtCore, QtWidgets
from pythonqt.slicer_application import Application

ROOT = Path(__file__).resolve().parents[2]


class Computer:
    """Installed packages by version, with installers that add to them, fail, or do nothing."""

    def __init__(self, **versions: str) -> None:
        self.versions: dict[str, str] = {item.name: item.minimum for item in REQUIREMENTS} | versions
        self.calls: list[Any] = []
        self.failure: Exception | None = None
        self.works = True

    def without(self, *names: str) -> Computer:
        for name in names:
            del self.versions[name]
        return self

    def versionOf(self, name: str) -> str | None:
        return self.versions.get(name)

    def installTorch(self, versions: str) -> None:
        self._install(["torch"], versions)

    def installPackages(self, requirements: Sequence[str]) -> None:
        self._install([text.partition(">")[0] for text in requirements], list(requirements))

    def _install(self, names: list[str], call: Any) -> None:
        self.calls.append(call)
        if self.failure is not None:
            raise self.failure
        if self.works:
            self.versions |= dict.fromkeys(names, "99")

    def ensure(self, agree: Callable[[InstallationPlan], bool] = lambda _: True) -> None:
        ensureInstalled(agree=agree, installers=self, versionOf=self.versionOf)


def test_no_dialog_when_nothing_is_missing() -> None:
    computer = Computer()
    computer.ensure(agree=lambda _: pytest.fail("asked"))
    assert computer.calls == []


def test_torch_is_installed_by_its_extension_and_the_rest_by_pip() -> None:
    computer = Computer().without("torch", "monai", "tqdm")
    computer.ensure()
    assert computer.calls == [">=2.11,<2.14", ["monai>=1.5", "tqdm>=4.66"]]


def test_declining_installs_nothing_and_gives_a_hint() -> None:
    computer = Computer().without("monai")
    with pytest.raises(DiffusionSegmentError) as caught:
        computer.ensure(agree=lambda _: False)
    assert caught.value.code is ErrorCode.PACKAGE_MISSING
    assert "monai" in caught.value.message
    assert caught.value.hint
    assert computer.calls == []


@pytest.mark.parametrize(
    "failure", [subprocess.CalledProcessError(1, "pip"), OSError("no network"), RuntimeError("declined")]
)
def test_a_failed_installation_gives_a_one_line_error(failure: Exception) -> None:
    computer = Computer().without("torch", "monai")
    computer.failure = failure
    with pytest.raises(DiffusionSegmentError, match="torch could not be installed") as caught:
        computer.ensure()
    assert "network" in caught.value.hint
    assert len(computer.calls) == 1


def test_an_installation_that_changed_nothing_is_reported() -> None:
    computer = Computer().without("nibabel")
    computer.works = False
    with pytest.raises(DiffusionSegmentError, match="Still not installed: nibabel"):
        computer.ensure()


@pytest.mark.parametrize(
    ("name", "version", "missing"),
    [
        ("torch", "2.10.1", True),
        ("torch", "2.11.0+cu126", False),
        ("torch", "2.99", False),
        ("monai", "1.5.dev2", False),
        ("SimpleITK", "", False),
        ("numpy", "1.9", True),
        ("nibabel", "unknown", True),
    ],
)
def test_a_version_that_is_too_old_counts_as_missing(name: str, version: str, missing: bool) -> None:
    plan = planInstallation(Computer(**{name: version}).versionOf)
    assert [item.name for item in plan.missing] == ([name] if missing else [])


def test_packages_are_looked_for_without_importing_them() -> None:
    assert installedVersion("numpy")
    assert installedVersion("no_such_package_anywhere") is None
    code = (
        "import sys; from DiffusionSegmentLib.installation import planInstallation; print(planInstallation().names);"
        "sys.exit(bool({'torch', 'monai', 'SimpleITK', 'nibabel', 'scipy'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "DiffusionSegment", check=True)


def test_the_requirements_equal_those_of_the_command_line() -> None:
    tomllib = pytest.importorskip("tomllib")
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    assert [f"{item.name}{item.versions}" for item in REQUIREMENTS] == listed
    assert tuple(item.name for item in REQUIREMENTS) == self_test.PACKAGES


def test_a_missing_pytorch_extension_is_reported_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    with pytest.raises(DiffusionSegmentError, match="extension PyTorch") as caught:
        SlicerInstallers().installTorch(">=2.11")
    assert "Extensions Manager" in caught.value.hint


def test_the_extension_installs_torch_without_a_second_dialog(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    logic = types.SimpleNamespace(installTorch=lambda **options: calls.append(options))
    monkeypatch.setitem(sys.modules, "PyTorchUtils", types.SimpleNamespace(PyTorchUtilsLogic=lambda: logic))
    SlicerInstallers().installTorch(">=2.11")
    assert calls == [{"askConfirmation": False, "torchVersionRequirement": ">=2.11"}]


def test_packages_are_installed_by_the_pip_function_of_old_and_new_slicer(monkeypatch: pytest.MonkeyPatch) -> None:
    import slicer.util

    calls: list[Any] = []
    monkeypatch.setattr(slicer.util, "pip_install", lambda names: calls.append(names), raising=False)
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    SlicerInstallers().installPackages(["tqdm>=4"])
    packaging = types.ModuleType("slicer.packaging")
    packaging.pip_install = lambda names, requester: calls.append((names, requester))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "slicer.packaging", packaging)
    SlicerInstallers().installPackages(["tqdm>=4"])
    assert calls == [["tqdm>=4"], (["tqdm>=4"], "DiffusionSegment")]


def answerWith(button: QtWidgets.QMessageBox.StandardButton, seen: list[str]) -> QtCore.QTimer:
    """A timer that appends the texts of the open dialog to `seen` and clicks the button."""

    def click() -> None:
        box = QtWidgets.QApplication.activeModalWidget()
        if isinstance(box, QtWidgets.QMessageBox):
            texts = (QtWidgets.QMessageBox.text(box), QtWidgets.QMessageBox.informativeText(box))
            seen.extend((*texts, QtWidgets.QMessageBox.button(box, button).text()))
            QtWidgets.QMessageBox.button(box, button).click()

    timer = QtCore.QTimer()
    timer.timeout.connect(click)
    timer.start(20)
    return timer


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> Computer:
    """A computer without torch and monai."""
    computer = Computer().without("torch", "monai")
    monkeypatch.setattr(installation, "find_spec", lambda name: None)
    monkeypatch.setattr(installation, "version", computer.versions.__getitem__)
    monkeypatch.setattr(installation, "PackageNotFoundError", KeyError)
    monkeypatch.setattr(SlicerInstallers, "installTorch", lambda _, versions: computer.installTorch(versions))
    monkeypatch.setattr(SlicerInstallers, "installPackages", lambda _, names: computer.installPackages(names))
    return computer


def test_entering_the_module_asks_and_installs_nothing(user: PanelUser, missing: Computer) -> None:
    user.widget.enter()
    user.addVolume()
    user.application.process()
    assert QtWidgets.QApplication.activeModalWidget() is None
    assert missing.calls == []
    assert user.widget.logic.client.hello is None


def test_the_first_click_asks_with_packages_and_sizes_and_then_segments(user: PanelUser, missing: Computer) -> None:
    user.addVolume()
    seen: list[str] = []
    timer = answerWith(QtWidgets.QMessageBox.Ok, seen)
    user.segment()
    timer.stop()
    question, rows, button = seen
    assert "Install them now?" in question
    assert "torch: about 200 MB, with CUDA up to 3 GB, by the extension PyTorch" in rows
    assert "monai: about 2 MB" in rows
    assert button == "Install"
    assert missing.calls == [">=2.11,<2.14", ["monai>=1.5"]]
    assert len(user.segmentations()) == 1


def test_declining_is_reported_and_the_panel_stays_usable(user: PanelUser, missing: Computer) -> None:
    user.addVolume()
    timer = answerWith(QtWidgets.QMessageBox.Cancel, [])
    user.click(user.ui.segmentButton)
    timer.stop()
    assert "Not installed: torch, monai." in user.ui.messageLabel.text
    assert "[NO_TORCH]" in user.ui.messageLabel.text
    assert missing.calls == []
    assert user.ui.segmentButton.text == "Segment"
    assert not user.ui.progressBar.visible


def test_no_dialog_while_slicer_runs_its_tests(user: PanelUser, missing: Computer, application: Application) -> None:
    user.addVolume()
    application.app.testing = True
    user.click(user.ui.segmentButton)
    application.app.testing = False
    assert "Not installed" in user.ui.messageLabel.text
    assert missing.calls == []
