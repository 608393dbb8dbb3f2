"""Estimated time left of a run, from its own speed and from the duration of the last run of its kind."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

# Shorter times are not extrapolated.
_MIN_SECONDS = 0.5
_FULL_TRUST_SHARE = 0.25
# Weight of a new estimate in exponential smoothing.
_SMOOTHING = 0.3


@dataclass
class _Stage:
    """One stage of a run: start time, duration, units done."""

    begun: float
    seconds: float = 0.0
    done: int = 0
    total: int = 0


@dataclass
class _Run:
    """The stages of a run in their order, and time and value of the last estimate."""

    kind: str
    stages: dict[str, _Stage] = field(default_factory=dict)
    estimate: tuple[float, float] | None = None


class TimeLeft:
    """Seconds until a run ends; `clock` gives seconds.

    Runs of one `kind` have the same stages and similar durations, such as those of one model. Until a run of a kind was
    finished, the estimate covers only the current stage.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, dict[str, _Stage]] = {}
        self._run = _Run("")

    def start(self, kind: str = "") -> None:
        """A run begins; without a kind it neither uses nor updates remembered durations."""
        self._run = _Run(kind)

    def finish(self) -> None:
        """The run was completed: its durations are remembered."""
        self._close(self._clock())
        if self._run.kind and self._run.stages:
            self._last[self._run.kind] = self._run.stages
        self._run = _Run("")

    def update(self, stage: str, done: int, total: int) -> float | None:
        """Seconds left after `done` of `total` units of `stage`; None while there is no estimate."""
        now, run = self._clock(), self._run
        if stage not in run.stages:
            self._close(now)
            run.stages[stage] = _Stage(now)
        current = run.stages[stage]
        current.done, current.total = done, total
        raw = self._estimate(stage, now - current.begun)
        if raw is None:
            run.estimate = None
            return None
        if run.estimate is not None:
            then, before = run.estimate
            expected = max(before - (now - then), 0.0)
            raw = expected + _SMOOTHING * (raw - expected)
        run.estimate = (now, raw)
        return raw

    def _close(self, now: float) -> None:
        """End the last stage."""
        for stage in list(self._run.stages.values())[-1:]:
            stage.seconds = now - stage.begun

    def _estimate(self, stage: str, elapsed: float) -> float | None:
        current, last = self._run.stages[stage], self._last.get(self._run.kind, {})
        share = min(current.done / current.total, 1.0) if current.total > 0 else 0.0
        paced = elapsed / share if share > 0 and elapsed >= _MIN_SECONDS else None
        known = last.get(stage)
        remembered = known.seconds * _scale(current, known) if known is not None else None
        if paced is not None and remembered is not None:
            # From a quarter of the stage on, only its own speed counts.
            trust = min(share / _FULL_TRUST_SHARE, 1.0)
            whole = trust * paced + (1 - trust) * remembered
        elif paced is not None:
            whole = paced
        elif remembered is not None:
            whole = remembered
        else:
            return None
        return max(whole - elapsed, 0.0) + self._later(last)

    def _later(self, last: dict[str, _Stage]) -> float:
        """Duration in the last run of the stages that are still to come; skipped stages do not count."""
        order = list(last)
        reached = max((order.index(name) for name in self._run.stages if name in last), default=len(order))
        return sum(last[name].seconds for name in order[reached + 1 :])


def _scale(current: _Stage, known: _Stage) -> float:
    """Ratio of the numbers of units to those of the last run."""
    return current.total / known.total if current.total > 0 and known.total > 0 else 1.0


def roundedSeconds(seconds: float) -> int:
    """Seconds rounded for display: to 1 below 10, to 5 below 60, else to 10; at least 1."""
    step = 1 if seconds < 10 else 5 if seconds < 60 else 10
    return max(step * round(seconds / step), 1)
