"""The dialog that asks before packages are installed."""

from collections.abc import Callable
from typing import Any

import qt
import slicer

from ..installation import InstallationPlan, Requirement, SlicerInstallers, ensureInstalled
from . import wording

_MEGABYTES_PER_GIGABYTE = 1000


def firstUse(parent: Any) -> Callable[[], None]:
    """A function to call before the worker is needed: asks for consent and installs missing packages."""

    def prepare() -> None:
        ensureInstalled(agree=lambda plan: askToInstall(plan, parent), installers=SlicerInstallers())

    return prepare


def askToInstall(plan: InstallationPlan, parent: Any) -> bool:
    """Whether the user agrees; False without asking while Slicer runs tests."""
    if slicer.app.testingEnabled():
        return False
    box = makeDialog(plan, parent)
    box.exec_()
    return bool(box.standardButton(box.clickedButton()) == qt.QMessageBox.Ok)


def makeDialog(plan: InstallationPlan, parent: Any) -> Any:
    """The dialog, not yet shown."""
    box = qt.QMessageBox(parent)
    box.windowTitle = wording.FIRST_USE
    box.text = wording.INSTALL_QUESTION
    box.informativeText = "\n".join([*(_row(item) for item in plan.missing), "", wording.INSTALL_NOTE])
    box.setStandardButtons(qt.QMessageBox.Ok | qt.QMessageBox.Cancel)
    box.button(qt.QMessageBox.Ok).setText(wording.INSTALL)
    box.button(qt.QMessageBox.Cancel).setText(wording.NOT_NOW)
    return box


def _row(item: Requirement) -> str:
    if item.maxMegabytes:
        return wording.INSTALL_ROW_UP_TO.format(
            package=item.name, size=_size(item.megabytes), most=_size(item.maxMegabytes)
        )
    return wording.INSTALL_ROW.format(package=item.name, size=_size(item.megabytes))


def _size(megabytes: int) -> str:
    if megabytes < _MEGABYTES_PER_GIGABYTE:
        return wording.MEGABYTES.format(size=megabytes)
    return wording.GIGABYTES.format(size=megabytes / _MEGABYTES_PER_GIGABYTE)
