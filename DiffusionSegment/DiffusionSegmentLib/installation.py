"""What the segmentation process needs and Slicer does not bring: what is missing, how large it is, how it gets there.

Nothing here imports a package to look for it, and nothing is installed before somebody agreed.
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
    """A Python package, called the same by pip and by `import`.

    `minimum` is the first version that will do and `below` the first that will not (empty: none is known);
    `megabytes` is the size of its download and what it depends on, `maxMegabytes` that of the largest build.
    """

    name: str
    minimum: str
    megabytes: int
    below: str = ""
    maxMegabytes: int = 0

    @property
    def versions(self) -> str:
        """The versions that will do, as pip writes them: ">=2.11,<2.14"."""
        return f">={self.minimum}" + (f",<{self.below}" if self.below else "")

    def isMetBy(self, installed: str | None) -> bool:
        """Whether an installed version will do; None is not installed, "" is installed without telling a version.

        A newer one than `below` is accepted: other extensions may need it, and it most likely works.
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
)


@dataclass(frozen=True)
class InstallationPlan:
    """What would be installed; nothing, where nothing is missing."""

    missing: tuple[Requirement, ...]

    @property
    def torch(self) -> Requirement | None:
        """PyTorch, where it is missing: the extension of that name installs it, because builds differ by driver."""
        return next((item for item in self.missing if item.name == TORCH), None)

    @property
    def others(self) -> tuple[Requirement, ...]:
        """What pip installs."""
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
    """How packages get into Slicer's Python."""

    def installTorch(self, versions: str) -> None:
        """Install PyTorch in a build that fits this computer."""

    def installPackages(self, requirements: Sequence[str]) -> None:
        """Install packages from the index of Python packages."""


def installedVersion(name: str) -> str | None:
    """Version of an installed package, "" where it tells none, None where there is no such package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "" if find_spec(name) is not None else None


def planInstallation(versionOf: Callable[[str], str | None] = installedVersion) -> InstallationPlan:
    """What is missing or too old."""
    return InstallationPlan(tuple(item for item in REQUIREMENTS if not item.isMetBy(versionOf(item.name))))


def ensureInstalled(
    *,
    agree: Callable[[InstallationPlan], bool],
    installers: Installers,
    versionOf: Callable[[str], str | None] = installedVersion,
) -> None:
    """Install what is missing if `agree` says so; costs milliseconds when nothing is.

    Raises:
        DiffusionSegmentError: NO_TORCH, or PACKAGE_MISSING where PyTorch is there: it was not agreed to, or did not
            succeed.
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
    left = planInstallation(versionOf)
    if left.missing:
        raise DiffusionSegmentError(
            left.errorCode, f"Still not installed: {left.names}.", hint="Restart Slicer and click again."
        )


def requireInstalled() -> None:
    """For scripts, which nobody can ask: refuse to start where something is missing.

    Raises:
        DiffusionSegmentError: NO_TORCH, PACKAGE_MISSING.
    """
    ensureInstalled(agree=lambda _: False, installers=SlicerInstallers())


class SlicerInstallers:
    """The ways that Slicer itself offers."""

    def installTorch(self, versions: str) -> None:
        """By the extension PyTorch, which finds the build for this computer's driver.

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
        """By `slicer.packaging`, which shows progress, or by what there was before Slicer 5.12."""
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
    """The numbers a version begins with: (2, 13, 0) of "2.13.0+cpu"."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in found.group().split(".")) if found else ()
