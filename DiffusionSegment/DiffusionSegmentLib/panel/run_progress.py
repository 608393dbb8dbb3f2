"""Progress of a run: stage, units done, time left."""

from typing import Any

from DiffusionSegmentBackend.protocol.messages import Progress

from . import wording
from .time_left import TimeLeft, roundedSeconds

_MINUTE = 60


class RunProgress:
    """Connects the progress bar and the labels above it to a run."""

    def __init__(self, ui: Any, timeLeft: TimeLeft | None = None) -> None:
        self._ui = ui
        self._timeLeft = timeLeft or TimeLeft()
        self.hide()

    def begin(self, text: str, *, kind: str = "") -> None:
        """A run begins; the time left is estimated from the last run of the same `kind`."""
        self._timeLeft.start(kind)
        self._set(text, "", 0, 0)

    def show(self, message: Progress) -> None:
        """Show stage, units done and the time left; for a run that waits, how many are ahead of it."""
        if message.stage in wording.WAITING_STAGES:
            self._set(wording.WAITING_STAGES[message.stage].format(ahead=message.total), "", 0, 0)
            return
        seconds = self._timeLeft.update(message.stage, message.done, message.total)
        parts = [wording.DONE_OF.format(done=message.done, total=message.total)] if message.total > 1 else []
        if seconds is not None:
            parts.append(_left(roundedSeconds(seconds)))
        self._set(wording.STAGES.get(message.stage, message.stage), " · ".join(parts), message.done, message.total)

    def finish(self) -> None:
        """The run was completed: its duration is remembered."""
        self._timeLeft.finish()
        self.hide()

    def hide(self) -> None:
        """No run is in progress."""
        self._set("", "", 0, 0)
        for widget in (self._ui.progressBar, self._ui.stageLabel, self._ui.timeLabel):
            widget.visible = False

    def _set(self, text: str, time: str, done: int, total: int) -> None:
        ui = self._ui
        ui.stageLabel.text = text
        ui.timeLabel.text = time
        ui.progressBar.maximum = total
        ui.progressBar.value = done
        for widget in (ui.progressBar, ui.stageLabel, ui.timeLabel):
            widget.visible = True


def _left(seconds: int) -> str:
    if seconds < 2 * _MINUTE:
        return wording.SECONDS_LEFT.format(seconds=seconds)
    return wording.MINUTES_LEFT.format(minutes=round(seconds / _MINUTE))
