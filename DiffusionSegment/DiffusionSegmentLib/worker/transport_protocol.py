"""Interface between the client and the worker process: bytes in, bytes out, exit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

BACKEND_ENTRY = Path(__file__).resolve().parents[2] / "DiffusionSegmentBackend" / "__main__.py"
# An idle worker exits to free its memory; ten minutes are longer than the review of one result.
WORKER_ARGUMENTS = ("-u", str(BACKEND_ENTRY), "worker", "--idle-seconds", "600")
REMOTE_ARGUMENTS = ("-u", str(BACKEND_ENTRY), "remote")
LOG_LINES = 200


class Transport(Protocol):
    """A running worker process. The callables set before `start` are called on the thread of the caller."""

    onOutput: Callable[[bytes], None]
    onFinished: Callable[[int], None]

    def start(self) -> None:
        """Start the process."""

    def write(self, data: bytes) -> None:
        """Send bytes to its standard input."""

    def closeInput(self) -> None:
        """Close its standard input, after which the worker exits."""

    def waitForFinished(self, seconds: float) -> bool:
        """Whether the process ended within that time."""

    def kill(self) -> None:
        """Kill the process."""

    def log(self) -> str:
        """The last lines of its standard error."""


def ignoreOutput(_: bytes) -> None:
    """Default receiver."""


def ignoreFinished(_: int) -> None:
    """Default receiver."""
