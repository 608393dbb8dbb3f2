"""The check box "All frames", shown when the input volume is a frame of a sequence."""

from collections.abc import Callable
from typing import Any

import slicer

from ..scene.merge_policy import MergePolicy
from ..scene.sequence import FrameSource, findFrames, findSequence
from ..scene.terminology import ModelDescription
from ..sequence_run import SequenceOutcome, SequenceRun
from ..worker.client import WorkerClient
from . import wording
from .panel_context import PanelContext

_SHOWN_FAILURES = 3


class SequencePanel:
    """Connects the check box "All frames"; `ended` is called when a run over frames has ended."""

    def __init__(self, ui: Any, client: WorkerClient, context: PanelContext, ended: Callable[[], None]) -> None:
        self._ui = ui
        self._client = client
        self._context = context
        self._ended = ended
        self._run: SequenceRun | None = None

    @property
    def running(self) -> bool:
        """Whether a run over frames is in progress."""
        return self._run is not None and self._run.running

    @property
    def selected(self) -> FrameSource | None:
        """The frames to segment; None for the input volume alone."""
        parameters = self._context.parameters
        return self._source if parameters is not None and parameters.allFrames else None

    @property
    def _source(self) -> FrameSource | None:
        node = self._context.parameters.inputVolume if self._context.parameters is not None else None
        return findFrames(node) if node is not None else None

    def update(self) -> None:
        """Show the check box where the input volume has frames."""
        source = self._source
        self._ui.allFramesBox.visible = source is not None
        self._ui.allFramesBox.enabled = not self._client.running
        if source is not None:
            self._ui.allFramesBox.text = wording.ALL_FRAMES.format(total=source.count)

    def start(self, source: FrameSource, description: ModelDescription, **options: Any) -> None:
        """Segment every frame; `options` are fields of `protocol.Segment`.

        Raises:
            DiffusionSegmentError: as `SequenceRun.start`.
        """
        self._run = SequenceRun(self._client, source, description, replaced=self._replaced(source))
        self._run.begun.connect(self._onBegun)
        self._run.ended.connect(self._onEnded)
        self._run.start(**options)

    def _replaced(self, source: FrameSource) -> slicer.vtkMRMLSequenceNode | None:
        parameters = self._context.parameters
        new = parameters is not None and parameters.mergePolicy is MergePolicy.NEW
        return None if new else findSequence(source)

    def _onBegun(self, number: int) -> None:
        if self._run is not None:
            source = self._run.source
            self._context.begin(wording.STARTING)
            self._context.say(wording.FRAME.format(number=number + 1, total=source.count, label=source.label(number)))

    def _onEnded(self, outcome: SequenceOutcome) -> None:
        self._ended()
        if self._run is not None and self._run.source.present:
            self._context.say(_summary(outcome))
        self._context.update()


def _summary(outcome: SequenceOutcome) -> str:
    summary = wording.FRAMES_KEPT if outcome.cancelled else wording.FRAMES_DONE
    lines = [summary.format(done=len(outcome.done), total=outcome.total)]
    for failed in outcome.failed[:_SHOWN_FAILURES]:
        reason = f"{failed.error.message} {failed.error.hint}".strip() + f" [{failed.error.code.value}]"
        lines.append(wording.FRAME_FAILED.format(number=failed.number + 1, label=failed.label, reason=reason))
    more = len(outcome.failed) - _SHOWN_FAILURES
    if more > 0:
        lines.append(wording.MORE_FAILED.format(more=more))
    return "\n".join(lines)
