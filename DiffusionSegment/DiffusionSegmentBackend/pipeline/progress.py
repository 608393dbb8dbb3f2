"""How a run tells where it is, and how it is stopped: the callback may raise `errors.Cancelled`."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called after every unit of work; a tile of a denoising step is the largest."""

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        """`done` of `total` units of `stage` are finished."""


def silent(stage: str, done: int, total: int) -> None:
    """A progress that tells nobody."""
