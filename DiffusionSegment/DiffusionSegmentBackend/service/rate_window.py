"""How often something happened within the last minute, by user or by address."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

_MINUTE = 60.0
_MAX_KEYS = 4096


class RateWindow:
    """Counts events by key over the last minute."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._events: dict[str, deque[float]] = {}

    def exceeded(self, key: str) -> bool:
        """Whether there were as many events within the last minute as are allowed."""
        events = self._recent(key)
        return len(events) >= self._per_minute

    def add(self, key: str) -> None:
        """Count an event."""
        if key not in self._events and len(self._events) >= _MAX_KEYS:
            # The key without an event for longest.
            self._events.pop(next(iter(self._events)))
        events = self._recent(key)
        events.append(self._clock())
        # Moved to the end: the most recent.
        self._events.pop(key, None)
        self._events[key] = events

    def _recent(self, key: str) -> deque[float]:
        events = self._events.get(key, deque())
        while events and self._clock() - events[0] > _MINUTE:
            events.popleft()
        return events
