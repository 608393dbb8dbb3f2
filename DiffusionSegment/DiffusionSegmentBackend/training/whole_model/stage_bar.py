"""One progress bar over all stages: which one runs, minutes of training done and left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tqdm import tqdm

from ..loop import Progress, Report
from .time_plan import MIN_STEPS, refuse_too_few_steps

_FORM = "{desc}{percentage:3.0f}%|{bar}| {n:.1f} of {total:.1f} min{postfix}"


class StageBar:
    """The bar of one run; `minutes` has those of each stage, reading and scoring included."""

    def __init__(self, bar: tqdm, minutes: Mapping[str, float]) -> None:
        self._bar = bar
        self._minutes = minutes
        self._before = 0.0
        self._names = [*minutes]

    def begin(self, stage: str) -> None:
        """The stages before this one are done."""
        number = self._names.index(stage)
        self._before = sum(self._minutes[name] for name in self._names[:number])
        self._bar.set_description(f"{number + 1}/{len(self._names)} {stage}")
        self._show(0.0)

    def note(self, text: str) -> None:
        """Say what takes time beside training."""
        self._bar.set_postfix_str(text)

    def report(self, stage: str, minutes: float, *, done: float = 0.0) -> Report:
        """What a training of `minutes` within the stage tells of each step; `done` are the stage's minutes before it.

        It ends a training that has too few steps (`refuse_too_few_steps`).
        """

        def tell(progress: Progress) -> None:
            if progress.share >= 1 and progress.step < MIN_STEPS:
                refuse_too_few_steps(stage, progress.step, minutes)
            self._show(done + progress.share * minutes, step=progress.step, losses=progress.losses)

        return tell

    def _show(self, minutes: float, *, step: int = 0, losses: Mapping[str, float] | None = None) -> None:
        self._bar.n = min(self._before + minutes, self._bar.total)
        left = self._bar.total - self._bar.n
        values = " ".join(f"{name}={value:.3f}" for name, value in (losses or {}).items())
        self._bar.set_postfix_str(f"{left:.1f} min left, step {step} {values}".rstrip(), refresh=False)
        self._bar.update(0)


@contextmanager
def stage_bar(minutes: Mapping[str, float]) -> Iterator[StageBar]:
    """A bar for stages of so many minutes."""
    with tqdm(total=sum(minutes.values()), bar_format=_FORM) as bar:
        yield StageBar(bar, minutes)


@contextmanager
def preparation_bar() -> Iterator[Callable[[str], None]]:
    """A line for what comes before the first stage, which is gone at the end."""
    with tqdm(bar_format="preparing{postfix}", leave=False) as bar:
        yield bar.set_postfix_str
