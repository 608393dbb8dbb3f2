"""Progress callbacks of a run; a callback stops the run by raising `errors.Cancelled`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """Called after every unit of work, of which a tile of a denoising step is the largest."""

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        """Report that `done` of `total` units of `stage` are finished."""


def silent(stage: str, done: int, total: int) -> None:
    """A progress that does nothing."""


def counted(progress: Progress, stage: str, total: int) -> Callable[[], None]:
    """A function to call before each of `total` units of `stage`, which reports the number of units finished."""
    begun = itertools.count()
    return lambda: progress(stage, next(begun), total)


def part_of(progress: Progress, index: int, count: int) -> Progress:
    """Progress of part `index` of `count` parts of about the same size, each with the same stages."""
    return lambda stage, done, total: progress(stage, index * total + done, count * total)


def part_of_correction(progress: Progress, index: int, count: int) -> Progress:
    """Progress of part `index` of `count` equal parts as one stage, "correct", in hundredths of a part.

    The features take about a third of the time of a part.
    """

    def report(stage: str, done: int, total: int) -> None:
        fraction = done / max(total, 1)
        hundredths = 30 * fraction if stage == "features" else 30 + 70 * fraction
        progress("correct", 100 * index + int(hundredths), 100 * count)

    return report
