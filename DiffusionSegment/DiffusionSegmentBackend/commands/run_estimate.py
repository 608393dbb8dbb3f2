"""How far a run is and how long the rest takes: from its own pace, and from how stages compare with each other.

The first run of a process has no earlier run to learn from. But how long one stage takes beside another is about the
same on all computers, so that the pace of the first stages tells of the later ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SEGMENT_STAGES = ("start", "load", "read", "prepare", "bodypart", "features", "refine", "restore", "write")
CORRECT_STAGES = ("start", "read", "load", "prepare", "bodypart", "features", "refine", "correct", "write")
FEATURE_STAGES = ("start", "read", "load", "features", "write")

# A pace from less than this many seconds says little.
_MIN_SECONDS = 0.5
# The share of a difference to the former estimate that is followed at once: the figure moves, and does not jump.
_BELIEF = 0.3
# What of a bar belongs to the stages before the time left is known.
_FIRST_SHARE = 0.1
# Where a bar waits for a run that takes longer than estimated.
_LAST_SHARE = 0.99


@dataclass(frozen=True)
class _Cost:
    """Seconds of a stage, and the stages with which it becomes faster or slower."""

    seconds: float
    group: str


# About what a CT of 100 slices takes; within a group the ratios alone count. `refine` is a pass: a step of a sample.
_COSTS = {
    "start": _Cost(4.0, "files"),
    "load": _Cost(1.0, "files"),
    "read": _Cost(2.0, "scan"),
    "prepare": _Cost(0.6, "scan"),
    "bodypart": _Cost(0.4, "scan"),
    "features": _Cost(1.0, "networks"),
    "refine": _Cost(0.75, "networks"),
    "correct": _Cost(1.0, "networks"),
    "restore": _Cost(0.6, "scan"),
    "write": _Cost(8.0, "scan"),
}
_OTHER = _Cost(1.0, "other")


@dataclass
class _Stage:
    """A stage that began: when, how long it took if it is over, and its share that is done, 0 to 1."""

    start: float
    seconds: float | None = None
    share: float = 0.0


class RunEstimate:
    """The stages of one run; `plan` names those that are to come, in order, `clock` gives seconds.

    `passes` are the steps times the samples of the refiner. A stage that the plan does not name counts for itself
    alone. A stage that is reported again after a later one, as in a run in parts, is a part of the later one.
    """

    def __init__(
        self, plan: Sequence[str] = (), *, passes: int = 8, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.passes = passes
        self._plan = tuple(plan)
        self._clock = clock
        self._begun = clock()
        self._stages: dict[str, _Stage] = {}
        self._estimate: tuple[float, float] | None = None
        self._known_since: float | None = None
        self._share = 0.0

    @property
    def stage(self) -> str:
        """The stage under way, "" before the first."""
        return next(reversed(self._stages), "")

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._begun

    def report(self, stage: str, done: int, total: int) -> bool:
        """Take in that `done` of `total` units of `stage` are finished; whether the stage has just begun."""
        now, is_new = self._clock(), stage not in self._stages
        if is_new:
            self._close(now)
            self._stages[stage] = _Stage(now)
        if stage == self.stage and total > 0:
            current = self._stages[stage]
            current.share = max(current.share, min(done / total, 1.0))
        self._follow(now)
        return is_new

    def seconds_by_stage(self) -> dict[str, float]:
        """Seconds of every stage so far, the one under way included, in the order in which they began."""
        now = self._clock()
        return {
            name: now - stage.start if stage.seconds is None else stage.seconds for name, stage in self._stages.items()
        }

    def seconds_left(self) -> float | None:
        """Seconds until the run ends; None until a network has shown its pace."""
        if self._estimate is None:
            return None
        then, left = self._estimate
        return max(left - (self._clock() - then), 0.0)

    def share(self) -> float:
        """The share of the run that is done, 0 to 1, which never falls; without a plan that of the stage.

        What comes before the time left is known counts little, as nobody knows how long the rest takes.
        """
        if not self._plan:
            return self._stages[self.stage].share if self._stages else 0.0
        left = self.seconds_left()
        if self._known_since is None or left is None:
            share = _FIRST_SHARE * min(len(self._stages) / len(self._plan), 1.0)
        else:
            passed = self._clock() - self._known_since
            share = _FIRST_SHARE + (_LAST_SHARE - _FIRST_SHARE) * passed / max(passed + left, 1e-9)
        self._share = max(self._share, share)
        return self._share

    def _close(self, now: float) -> None:
        if self._stages:
            last = self._stages[self.stage]
            last.seconds = now - last.start

    def _follow(self, now: float) -> None:
        """Move the estimate towards what the pace says now."""
        if not self._is_known(now):
            return
        raw = self._raw_seconds_left(now)
        if self._estimate is not None:
            then, before = self._estimate
            expected = max(before - (now - then), 0.0)
            raw = expected + _BELIEF * (raw - expected)
        self._estimate = now, raw
        if self._known_since is None:
            self._known_since = now

    def _is_known(self, now: float) -> bool:
        if self.stage in self._plan:
            networks = [name for name in self._stages if _cost(name).group == "networks"]
            return any(self._measured(name, now) is not None for name in networks)
        return self._measured(self.stage, now) is not None

    def _raw_seconds_left(self, now: float) -> float:
        if not self._stages:
            return 0.0
        name, current = self.stage, self._stages[self.stage]
        elapsed = now - current.start
        whole = self._measured(name, now)
        if whole is None:
            whole = self._expected(name, now)
        return max(whole - elapsed, 0.0) + sum(self._expected(later, now) for later in self._later())

    def _later(self) -> tuple[str, ...]:
        """The planned stages behind the furthest that began; those that were skipped are not waited for."""
        reached = [self._plan.index(name) for name in self._stages if name in self._plan]
        return self._plan[max(reached) + 1 :] if reached else self._plan

    def _measured(self, name: str, now: float) -> float | None:
        """Seconds of a stage that is over, or as its own pace says; None while that is not known."""
        stage = self._stages[name]
        if stage.seconds is not None:
            return stage.seconds
        elapsed = now - stage.start
        return elapsed / stage.share if stage.share > 0 and elapsed >= _MIN_SECONDS else None

    def _expected(self, name: str, now: float) -> float:
        """Seconds of a stage, by how much longer than usual the stages of its group took so far."""
        group = _cost(name).group
        measured = {other: self._measured(other, now) for other in self._stages if _cost(other).group == group}
        known = {other: seconds for other, seconds in measured.items() if seconds is not None}
        usual = sum(self._usual(other) for other in known)
        return self._usual(name) * (sum(known.values()) / usual if usual > 0 else 1.0)

    def _usual(self, name: str) -> float:
        return _cost(name).seconds * (self.passes if name == "refine" else 1)


def _cost(name: str) -> _Cost:
    return _COSTS.get(name, _OTHER)
