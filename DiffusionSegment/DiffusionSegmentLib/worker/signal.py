"""A signal without Qt: callables that are told, in the order in which they connected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Signal:
    """`connect` callables, `emit` to them."""

    def __init__(self) -> None:
        self._receivers: list[Callable[..., None]] = []

    def connect(self, receiver: Callable[..., None]) -> None:
        """Add a receiver; the same one is told once."""
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
