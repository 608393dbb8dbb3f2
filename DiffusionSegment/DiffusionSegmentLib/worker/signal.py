"""A signal without Qt: receivers are called in the order in which they were connected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Signal:
    """A list of receivers that `emit` calls."""

    def __init__(self) -> None:
        self._receivers: list[Callable[..., None]] = []

    def connect(self, receiver: Callable[..., None]) -> None:
        """Add a receiver; connecting it again has no effect."""
        if receiver not in self._receivers:
            self._receivers.append(receiver)

    def disconnect(self, receiver: Callable[..., None]) -> None:
        """Remove a receiver, if it is connected."""
        if receiver in self._receivers:
            self._receivers.remove(receiver)

    def emit(self, *arguments: Any) -> None:
        """Call every receiver."""
        for receiver in list(self._receivers):
            receiver(*arguments)
