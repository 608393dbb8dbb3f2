"""What a command line shows of a running command: a bar with stage and time left, or a line a stage, or nothing."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from .run_estimate import RunEstimate

STAGES = {
    "start": "Loading PyTorch",
    "read": "Reading the scan",
    "load": "Loading the model",
    "presegmenter": "Running the presegmenter",
    "prepare": "Preparing the scan",
    "bodypart": "Computing body coordinates",
    "features": "Computing features",
    "refine": "Drawing samples",
    "restore": "Resampling to the scan's grid",
    "correct": "Applying corrections",
    "fine_tune": "Learning",
    "write": "Writing files",
}
_FORM = "{desc} {percentage:3.0f}%|{bar}| {elapsed}{postfix}"
# What several runs of a process share.
_ONCE = ("start", "load")
_TICK_SECONDS = 1.0
_MINUTE = 60.0


def add_progress_option(parser: argparse.ArgumentParser) -> None:
    """Add `--quiet`, without which a run shows its stage and the time left on standard error."""
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress on standard error")


class ProgressBar:
    """The stages of a run on standard error, and the time that each takes; nothing of the bar is left at the end.

    On a terminal that is one bar over all stages, elsewhere, and with `lines`, one line a stage. `plan` names the
    stages that are to come, so that the time left is that of the whole run; without it, it is that of the stage.
    """

    def __init__(
        self,
        plan: Sequence[str] = (),
        *,
        quiet: bool = False,
        lines: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._quiet = quiet
        self._lines = lines
        self._clock = clock
        self._begun = clock()
        self._plan = tuple(plan)
        self._lock = threading.RLock()
        self._bar: Any = None
        self._stopped = threading.Event()
        self._run = RunEstimate(self._plan, clock=clock)
        self._title, self._waiting = "", 0
        self._whole_runs: list[float] = []

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` units of `stage` are finished."""
        with self._lock:
            is_new = self._run.report(stage, done, total)
            if self._quiet:
                return
            if self._lines or not _is_terminal():
                if is_new:
                    print(self._line(), file=sys.stderr, flush=True)
                return
            if self._bar is None:
                self._open()
            self._show()

    def say(self, line: str) -> None:
        """Print a line on standard output, above the bar."""
        with self._lock:
            tqdm.write(line, file=sys.stdout)

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return self._run.elapsed

    def next_run(self, title: str, *, waiting: int) -> None:
        """Begin one of several runs, named `title`, after which `waiting` more are to come.

        The first one includes what was done before it. The time shown is that since the first began, the time left that
        of all.
        """
        with self._lock:
            self.close()
            if self._title:
                if self._run.stage == self._plan[-1]:
                    self._whole_runs.append(self._run.elapsed - self._preparation())
                plan = [stage for stage in self._plan if stage not in _ONCE]
                self._run = RunEstimate(plan, passes=self._run.passes, clock=self._clock)
            self._title, self._waiting = title, waiting

    def _preparation(self) -> float:
        """Seconds of what is done once for all runs."""
        return sum(seconds for stage, seconds in self._run.seconds_by_stage().items() if stage in _ONCE)

    def expect_passes(self, passes: int) -> None:
        """Take in how often the refiner passes over the scan: its steps times its samples."""
        self._run.passes = passes

    def timings(self, pipeline: Mapping[str, float]) -> dict[str, float]:
        """Seconds by stage of the whole run so far, with the `pipeline`'s own where it measured them, and their total.

        `total` is the time by the clock, in which the seconds between two stages count too.
        """
        stages = {**self._run.seconds_by_stage(), **pipeline}
        stages["total"] = self.elapsed
        return {name: round(seconds, 3) for name, seconds in stages.items()}

    def close(self) -> None:
        """Clear the line."""
        with self._lock:
            self._stopped.set()
            if self._bar is not None:
                self._bar.clear()
                self._bar.close()
                self._bar = None

    def _open(self) -> None:
        # With a delay tqdm draws nothing by itself before there is something to say.
        self._bar = tqdm(total=1.0, bar_format=_FORM, file=sys.stderr, leave=False, dynamic_ncols=True, delay=1e-3)
        self._bar.start_t -= self._clock() - self._begun
        self._stopped = threading.Event()
        threading.Thread(target=self._tick, args=(self._stopped,), daemon=True).start()

    def _tick(self, stopped: threading.Event) -> None:
        """Keep the clock going while a stage reports nothing."""
        while not stopped.wait(_TICK_SECONDS):
            with self._lock:
                if not stopped.is_set():
                    self._show()

    def _show(self) -> None:
        self._bar.n = self._run.share()
        self._bar.set_description_str(self._named(), refresh=False)
        self._bar.set_postfix_str(self._left(), refresh=False)
        self._bar.refresh()

    def _line(self) -> str:
        left = self._left()
        return f"[{tqdm.format_interval(self._clock() - self._begun)}] {self._named()}{', ' if left else ''}{left}"

    def _named(self) -> str:
        stage = STAGES.get(self._run.stage, self._run.stage)
        return f"{self._title}: {stage}" if self._title else stage

    def _left(self) -> str:
        left = self._run.seconds_left()
        if left is None:
            return ""
        runs = self._whole_runs or [self._run.elapsed - self._preparation() + left]
        typical = sum(runs) / len(runs)
        return time_left(left + self._waiting * typical)


def time_left(seconds: float) -> str:
    """Seconds as a user wants them: to one below 10, to five below a minute, to ten below two, then in minutes."""
    if seconds >= 2 * _MINUTE:
        return f"about {round(seconds / _MINUTE)} min left"
    step = 1 if seconds < 10 else 5 if seconds < _MINUTE else 10
    return f"about {max(step * round(seconds / step), 1)} s left"


def _is_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
