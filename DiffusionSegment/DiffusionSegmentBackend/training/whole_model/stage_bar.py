"""One progress bar over all stages: the current stage, minutes of training done and left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tqdm import tqdm

from ..loop import StepCallback, StepReport
from .time_plan import MIN_STEPS, refuse_too_few_steps

_FORM = "{desc}{percentage:3.0f}%|{bar}| {n:.1f} of {total:.1f} min{postfix}"


class StageBar:
    """The progress bar of one run; `minutes` are those of each stage, including reading and scoring."""

    def __init__(self, bar: tqdm, minutes: Mapping[str, float]) -> None:
        self._bar = bar
        self._minutes = minutes
        self._before = 0.0
        self._names = [*minutes]

    def begin(self, stage: str) -> None:
        """Start a stage; those before it count as done."""
        number = self._names.index(stage)
        self._before = sum(self._minutes[name] for name in self._names[:number])
        self._bar.set_description(f"{number + 1}/{len(self._names)} {stage}")
        self._show(0.0)

    def note(self, text: str) -> None:
        """Show what is being done besides training."""
        self._bar.set_postfix_str(text)

    def report(self, stage: str, minutes: float, *, done: float = 0.0) -> StepCallback:
        """The step callback of a network that trains for `minutes` within the stage, after `done` minutes of it.

        The callback raises for a run with too few steps (`refuse_too_few_steps`).
        """

        def show(report: StepReport) -> None:
            if report.share >= 1 and report.step < MIN_STEPS:
                refuse_too_few_steps(stage, report.step, minutes)
            self._show(done + report.share * minutes, step=report.step, losses=report.losses)

        return show

    def _show(self, minutes: float, *, step: int = 0, losses: Mapping[str, float] | None = None) -> None:
        self._bar.n = min(self._before + minutes, self._bar.total)
        left = self._bar.total - self._bar.n
        values = " ".join(f"{name}={value:.3f}" for name, value in (losses or {}).items())
        self._bar.set_postfix_str(f"{left:.1f} min left, step {step} {values}".rstrip(), refresh=False)
        self._bar.update(0)


@contextmanager
def stage_bar(minutes: Mapping[str, float]) -> Iterator[StageBar]:
    """A progress bar for stages with the given minutes."""
    with tqdm(total=sum(minutes.values()), bar_format=_FORM) as bar:
        yield StageBar(bar, minutes)


@contextmanager
def preparation_bar() -> Iterator[Callable[[str], None]]:
    """A status line for the work before the first stage, cleared at the end."""
    with tqdm(bar_format="preparing{postfix}", leave=False) as bar:
        yield bar.set_postfix_str
