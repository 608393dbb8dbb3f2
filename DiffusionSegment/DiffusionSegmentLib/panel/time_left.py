"""How much longer a run takes, from its own pace and from what the last run of its kind took."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

# A single quick unit says little about the others.
_LEAST_SECONDS = 0.5
_ENOUGH = 0.25
# Of each surprise that much is believed at once: the figure follows, and does not jump.
_BELIEF = 0.3


@dataclass
class _Stage:
    """One stage of a run: when it began, how long it took, how far it is."""

    begun: float
    seconds: float = 0.0
    done: int = 0
    total: int = 0


@dataclass
class _Run:
    """The stages of a run in the order in which they came, and the last estimate with its moment."""

    kind: str
    stages: dict[str, _Stage] = field(default_factory=dict)
    told: tuple[float, float] | None = None


class TimeLeft:
    """Seconds until a run ends; `clock` gives seconds.

    Runs of one `kind` have the same stages and about the same length, such as those of one model. While no run of a
    kind was finished, the estimate is for the stage under way alone.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, dict[str, _Stage]] = {}
        self._run = _Run("")

    def start(self, kind: str = "") -> None:
        """A run begins; one without a kind teaches nothing and learns from none."""
        self._run = _Run(kind)

    def finish(self) -> None:
        """The run came to its end: what it took is remembered. One that was cut short is not."""
        self._close(self._clock())
        if self._run.kind and self._run.stages:
            self._last[self._run.kind] = self._run.stages
        self._run = _Run("")

    def update(self, stage: str, done: int, total: int) -> float | None:
        """Seconds left now that `done` of `total` units of `stage` are finished; None while nothing is known."""
        now, run = self._clock(), self._run
        if stage not in run.stages:
            self._close(now)
            run.stages[stage] = _Stage(now)
        current = run.stages[stage]
        current.done, current.total = done, total
        raw = self._estimate(stage, now - current.begun)
        if raw is None:
            run.told = None
            return None
        if run.told is not None:
            then, before = run.told
            expected = max(before - (now - then), 0.0)
            raw = expected + _BELIEF * (raw - expected)
        run.told = (now, raw)
        return raw

    def _close(self, now: float) -> None:
        """The stage that came last is over."""
        for stage in list(self._run.stages.values())[-1:]:
            stage.seconds = now - stage.begun

    def _estimate(self, stage: str, elapsed: float) -> float | None:
        current, last = self._run.stages[stage], self._last.get(self._run.kind, {})
        share = min(current.done / current.total, 1.0) if current.total > 0 else 0.0
        paced = elapsed / share if share > 0 and elapsed >= _LEAST_SECONDS else None
        known = last.get(stage)
        remembered = known.seconds * _scale(current, known) if known is not None else None
        if paced is not None and remembered is not None:
            # From a quarter on its own pace tells more of a run than the last one does.
            trust = min(share / _ENOUGH, 1.0)
            whole = trust * paced + (1 - trust) * remembered
        elif paced is not None:
            whole = paced
        elif remembered is not None:
            whole = remembered
        else:
            return None
        return max(whole - elapsed, 0.0) + self._later(last)

    def _later(self, last: dict[str, _Stage]) -> float:
        """Seconds that the stages took last time that are still to come; those that were skipped are not."""
        order = list(last)
        reached = max((order.index(name) for name in self._run.stages if name in last), default=len(order))
        return sum(last[name].seconds for name in order[reached + 1 :])


def _scale(current: _Stage, known: _Stage) -> float:
    """How much more there is to do than last time, by the count of units."""
    return current.total / known.total if current.total > 0 and known.total > 0 else 1.0


def roundedSeconds(seconds: float) -> int:
    """Seconds as a reader wants them: to one below 10, to five below a minute, else to ten; at least 1."""
    step = 1 if seconds < 10 else 5 if seconds < 60 else 10
    return max(step * round(seconds / step), 1)
