"""The button that starts a run and cancels the one in progress."""

from typing import Any

from ..worker.client import WorkerClient
from ..worker.worker_state import WorkerState
from . import wording
from .panel_context import offer


class SegmentButton:
    """Shows on `button` what a click does in the current state of the worker."""

    def __init__(self, button: Any, client: WorkerClient) -> None:
        self._button = button
        self._client = client

    def update(self, missing: str) -> None:
        """Follow the state of the worker; `missing` says why no run can be started, empty where one can."""
        if not self._client.running:
            self._button.text = wording.SEGMENT
            offer(self._button, missing, wording.READY)
        elif self._client.state is WorkerState.CANCELLING:
            self._button.text = wording.CANCELLING
            offer(self._button, wording.STOPPING, wording.RUNNING)
        else:
            self._button.text = wording.CANCEL
            offer(self._button, "", wording.RUNNING)
