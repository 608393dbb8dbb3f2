"""What the parts of the panel share: the shown result, the parameters, messages."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, Protocol

from DiffusionSegmentBackend.schema.report import Report

from ..parameters import Parameters
from ..scene.result import SceneResult
from ..scene.run_options import optionsOfRun
from ..scene.segmented_scan import SegmentedScan


class PanelContext(Protocol):
    """The panel as seen by its parts; `scan` and `result` are None while no result is shown."""

    scan: SegmentedScan | None
    result: SceneResult | None
    parameters: Parameters | None

    def guard(self, action: Callable[[], object]) -> None:
        """Do what a click asks for; a failure is shown in the panel."""

    def say(self, text: str) -> None:
        """Show a message."""

    def begin(self, text: str) -> None:
        """A request is about to be sent to the worker."""

    def update(self) -> None:
        """Update all parts of the panel."""

    def regionChanged(self) -> None:
        """Another region is under review."""

    def organStatesChanged(self) -> None:
        """The review state of organs may have changed."""

    def reportChanged(self, report: Report | None) -> None:
        """The report changed; None: read it from the scene."""


class PanelPart(Protocol):
    """A part of the panel."""

    def update(self) -> None:
        """Follow the parameters, the shown result and the state of the worker."""


def offer(button: Any, reason: str, tip: str) -> None:
    """Enable a button unless there is a `reason` why it cannot be used; the tool tip is that reason, or `tip`."""
    button.enabled = not reason
    button.toolTip = reason or tip


def requestOptions(scan: SegmentedScan, parameters: Parameters) -> dict[str, Any]:
    """Options of a request that continues the run behind a segmentation.

    Raises:
        DiffusionSegmentError: what `optionsOfRun` raises.
    """
    memory = parameters.memoryLimit or None
    options = replace(
        optionsOfRun(scan.segmentation), device=parameters.device.value, memory_limit_gb=memory, force=True
    )
    return asdict(options)
