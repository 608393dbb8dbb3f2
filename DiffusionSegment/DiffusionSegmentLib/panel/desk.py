"""What the parts of the panel share: the result that is being looked at, and a voice."""

from collections.abc import Callable
from typing import Any, Protocol

from ..parameters import Parameters
from ..scene.labelled_scan import LabelledScan, readReport
from ..scene.result import SceneResult


class Desk(Protocol):
    """The panel as its parts see it; `scan` and `result` are None while there is no result."""

    scan: LabelledScan | None
    result: SceneResult | None
    parameters: Parameters | None

    def guard(self, action: Callable[[], None]) -> None:
        """Do what a click asks for; a failure is told in the panel."""

    def say(self, text: str) -> None:
        """Show a message."""

    def begin(self, text: str) -> None:
        """A request is about to go to the worker."""

    def update(self) -> None:
        """Bring every button to what can be done now."""

    def regionChanged(self) -> None:
        """Another region is under review."""

    def organStatesChanged(self) -> None:
        """The review state of organs may have changed."""

    def reportChanged(self, report: dict[str, Any] | None) -> None:
        """The report changed; None: read it from the scene."""


def offer(button: Any, reason: str, tip: str) -> None:
    """Enable a button that can be used now; `reason` says why it cannot, `tip` what it does."""
    button.enabled = not reason
    button.toolTip = reason or tip


def requestOptions(scan: LabelledScan, parameters: Parameters) -> dict[str, Any]:
    """Fields of a request that continues the run behind a segmentation, so that the worker finds it again."""
    told = readReport(scan.segmentation).get("provenance", {})
    organs, region = told.get("organs"), told.get("region")
    return {
        "model": str(told.get("model", "")),
        "samples": told.get("samples") or None,
        "steps": told.get("steps") or None,
        "seed": int(told.get("seed") or 0),
        "sampler": told.get("sampler"),
        "organs": tuple(organs) if organs else None,
        "region": tuple(float(value) for value in region) if region else None,
        "device": parameters.device.value,
        "memory_limit_gb": parameters.memoryLimit or None,
        "force": True,
    }
