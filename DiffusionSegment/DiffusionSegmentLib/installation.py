"""Python packages that the worker needs and Slicer does not include: which are missing, and their installation.

Packages are looked up without importing them, and nothing is installed without consent.
"""

from __future__ import annotations

import importlib
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Protocol

from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode

TORCH = "torch"
_REQUESTER = "DiffusionSegment"


@dataclass(frozen=True)
class Requirement:
    """A Python package with the same name for pip and for `import`.

    `minimum` is the first version that works and `below` the first that does not (empty: unknown); `megabytes` is the
    size of the download with its dependencies, `maxMegabytes` that of the largest build.
    """

    name: str
    minimum: str
    megabytes: int
    below: str = ""
    maxMegabytes: int = 0

    @property
    def versions(self) -> str:
        """The versions that work, as a pip requirement such as ">=2.11,<2.14"."""
        return f">={self.minimum}" + (f",<{self.below}" if self.below else "")

    def isMetBy(self, installed: str | None) -> bool:
        """Whether an installed version works; None is not installed, "" is installed without a known version.

        Versions from `below` on are accepted: other extensions may need them, and they probably work.
        """
        return installed is not None and (not installed or _numbers(installed) >= _numbers(self.minimum))


REQUIREMENTS = (
    Requirement(TORCH, "2.11", 200, below="2.14", maxMegabytes=3000),
    Requirement("monai", "1.5", 2),
    Requirement("numpy", "1.26", 17),
    Requirement("scipy", "1.11", 37),
    Requirement("SimpleITK", "2.3", 53),
    Requirement("nibabel", "5.2", 4),
    Requirement("pydicom", "3", 3),
    Requirement("highdicom", "0.24", 12),
    Requirement("safetensors", "0.4", 1),
    Requirement("tqdm", "4.66", 1),
    Requirement("psutil", "5.9", 1),
    Requirement("platformdirs", "4", 1),
)


@dataclass(frozen=True)
class InstallationPlan:
    """The packages to install."""

    missing: tuple[Requirement, ...]

    @property
    def torch(self) -> Requirement | None:
        """PyTorch, where it is missing; the extension PyTorch installs the build that fits the driver."""
        return next((item for item in self.missing if item.name == TORCH), None)

    @property
    def others(self) -> tuple[Requirement, ...]:
        """The packages that pip installs."""
        return tuple(item for item in self.missing if item.name != TORCH)

    @property
    def errorCode(self) -> ErrorCode:
        """NO_TORCH only where PyTorch itself is missing."""
        return ErrorCode.NO_TORCH if self.torch is not None else ErrorCode.PACKAGE_MISSING

    @property
    def names(self) -> str:
        """The packages in one line."""
        return ", ".join(item.name for item in self.missing)


class Installers(Protocol):
    """Installs packages into the Python of Slicer."""

    def installTorch(self, versions: str) -> None:
        """Install a build of PyTorch that fits this computer."""

    def installPackages(self, requirements: Sequence[str]) -> None:
        """Install packages from the Python package index."""


def installedVersion(name: str) -> str | None:
    """Version of an installed package; "" where it is unknown, None where the package is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "" if find_spec(name) is not None else None


def planInstallation(versionOf: Callable[[str], str | None] = installedVersion) -> InstallationPlan:
    """The packages that are missing or too old."""
    return InstallationPlan(tuple(item for item in REQUIREMENTS if not item.isMetBy(versionOf(item.name))))


def ensureInstalled(
    *,
    agree: Callable[[InstallationPlan], bool],
    installers: Installers,
    versionOf: Callable[[str], str | None] = installedVersion,
) -> None:
    """Install missing packages if `agree` returns True; takes milliseconds when none is missing.

    Raises:
        DiffusionSegmentError: NO_TORCH, or PACKAGE_MISSING where PyTorch is installed: the user did not agree, or the
            installation failed.
    """
    plan = planInstallation(versionOf)
    if not plan.missing:
        return
    if not agree(plan):
        raise DiffusionSegmentError(
            plan.errorCode,
            f"Not installed: {plan.names}.",
            hint="Click Segment in the panel of Diffusion Segment and agree to the installation.",
        )
    if plan.torch is not None:
        _install(plan.torch.name, lambda item: installers.installTorch(item.versions), plan.torch)
    if plan.others:
        wanted = [f"{item.name}{item.versions}" for item in plan.others]
        _install(", ".join(item.name for item in plan.others), installers.installPackages, wanted)
    importlib.invalidate_caches()
    remaining = planInstallation(versionOf)
    if remaining.missing:
        raise DiffusionSegmentError(
            remaining.errorCode, f"Still not installed: {remaining.names}.", hint="Restart Slicer and click again."
        )


def requireInstalled() -> None:
    """For scripts: refuse to start where a package is missing, without asking.

    Raises:
        DiffusionSegmentError: NO_TORCH, PACKAGE_MISSING.
    """
    ensureInstalled(agree=lambda _: False, installers=SlicerInstallers())


class SlicerInstallers:
    """The installers of Slicer."""

    def installTorch(self, versions: str) -> None:
        """Use the extension PyTorch, which selects the build for the driver of this computer.

        Raises:
            DiffusionSegmentError: NO_TORCH without that extension.
        """
        try:
            import PyTorchUtils
        except ModuleNotFoundError as error:
            raise DiffusionSegmentError(
                ErrorCode.NO_TORCH,
                "The extension PyTorch, which installs PyTorch, is missing.",
                hint="Install it in the Extensions Manager, restart Slicer, and click again.",
            ) from error
        PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=False, torchVersionRequirement=versions)

    def installPackages(self, requirements: Sequence[str]) -> None:
        """Use `slicer.packaging`, which shows progress, or `slicer.util` before Slicer 5.12."""
        try:
            from slicer.packaging import pip_install
        except ImportError:
            from slicer.util import pip_install

            pip_install(list(requirements))
        else:
            pip_install(list(requirements), requester=_REQUESTER)


def _install(names: str, installer: Callable[..., None], wanted: object) -> None:
    try:
        installer(wanted)
    except (subprocess.CalledProcessError, OSError, RuntimeError, ValueError) as error:
        raise DiffusionSegmentError(
            ErrorCode.NO_TORCH if TORCH in names.split(", ") else ErrorCode.PACKAGE_MISSING,
            f"{names} could not be installed ({type(error).__name__}).",
            hint="Check the network connection; Slicer's log has the details.",
        ) from error


def _numbers(text: str) -> tuple[int, ...]:
    """The numbers at the start of a version: (2, 13, 0) of "2.13.0+cpu"."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in match.group().split(".")) if match else ()
