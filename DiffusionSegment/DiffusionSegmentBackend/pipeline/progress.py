"""How a run tells where it is, and how it is stopped: the callback may raise `errors.Cancelled`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """Called after every unit of work; a tile of a denoising step is the largest."""

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        """`done` of `total` units of `stage` are finished."""


def silent(stage: str, done: int, total: int) -> None:
    """A progress that tells nobody."""


def counted(progress: Progress, stage: str, total: int) -> Callable[[], None]:
    """What is called before each of `total` units of `stage` and tells how many are done."""
    begun = itertools.count()
    return lambda: progress(stage, next(begun), total)


def part_of(progress: Progress, index: int, count: int) -> Progress:
    """Progress of part `index` of `count` parts of about the same size, each with the same stages."""
    return lambda stage, done, total: progress(stage, index * total + done, count * total)


def within(progress: Progress, index: int, count: int) -> Progress:
    """Progress of part `index` of `count` equal parts as one stage, "correct", in hundredths of a part.

    A part's features take about a third of its time.
    """

    def tell(stage: str, done: int, total: int) -> None:
        share = done / max(total, 1)
        hundredths = 30 * share if stage == "features" else 30 + 70 * share
        progress("correct", 100 * index + int(hundredths), 100 * count)

    return tell
