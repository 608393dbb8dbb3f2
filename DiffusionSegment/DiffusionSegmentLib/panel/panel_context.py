"""What the parts of the panel share: the shown result, the parameters, messages."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, Protocol

from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.schema.dataclass_json import SchemaError, from_json
from DiffusionSegmentBackend.schema.run_options import RESULT_OPTIONS, RunOptions

from ..parameters import Parameters
from ..scene.result import SceneResult
from ..scene.segmented_scan import SegmentedScan, readReport


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

    def reportChanged(self, report: dict[str, Any] | None) -> None:
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
    """Options of a request that continues the run behind a segmentation: the worker keeps a session for these values.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE when the provenance kept with the segmentation is damaged.
    """
    provenance = readReport(scan.segmentation).get("provenance", {})
    # A null or 0 stands for the model's default.
    stated = {name: provenance[name] for name in RESULT_OPTIONS if provenance.get(name)}
    try:
        options = from_json(RunOptions, {**stated, "model": str(provenance.get("model", ""))})
    except SchemaError as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE,
            f"The provenance kept with {scan.segmentation.GetName()} is damaged.",
            hint="Segment the scan again.",
        ) from error
    memory = parameters.memoryLimit or None
    return asdict(replace(options, device=parameters.device.value, memory_limit_gb=memory, force=True))
