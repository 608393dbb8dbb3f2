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


def requestOptions(scan: LabelledScan, parameters: Parameters) -> dict[str, Any]:
    """Fields of a request that continues the run behind a segmentation, so that the worker finds it again."""
    told = readReport(scan.segmentation).get("provenance", {})
    organs = told.get("organs")
    return {
        "model": str(told.get("model", "")),
        "samples": told.get("samples") or None,
        "steps": told.get("steps") or None,
        "seed": int(told.get("seed") or 0),
        "sampler": told.get("sampler"),
        "organs": tuple(organs) if organs else None,
        "device": parameters.device.value,
        "force": True,
    }
