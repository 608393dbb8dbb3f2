"""How long a request is repeated while the server cannot be reached."""

from __future__ import annotations

import time
from collections.abc import Callable

_PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
_TICK = 0.1

# Called during each pause with the number of the attempt that follows; raises to give up.
Retrying = Callable[[int], None]


class Patience:
    """Pauses between attempts, for `seconds` since the last success."""

    def __init__(self, seconds: float, retrying: Retrying) -> None:
        self._seconds = seconds
        self._retrying = retrying
        self.reset()

    def reset(self) -> None:
        """An attempt succeeded."""
        self._end: float | None = None
        self._attempt = 0

    def wait(self) -> bool:
        """Wait before the next attempt; False when the time is over.

        The first failure is followed by an attempt at once, because a kept connection may have been closed meanwhile.
        """
        now = time.monotonic()
        self._end = self._end or now + self._seconds
        pause = _PAUSES[min(self._attempt, len(_PAUSES) - 1)]
        self._attempt += 1
        if now + pause > self._end:
            return False
        while time.monotonic() < now + pause:
            self._retrying(self._attempt)
            time.sleep(_TICK)
        return True
