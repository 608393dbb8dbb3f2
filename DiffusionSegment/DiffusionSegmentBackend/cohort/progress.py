"""Progress of a cohort on standard error: scans done and failed, scans an hour, time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

from .scan import Outcome

_BAR = "{desc} |{bar}| {n_fmt}/{total_fmt} {elapsed}{postfix}"
_LINE_SECONDS = 30.0
_HOUR = 3600.0


class CohortProgress:
    """A bar on a terminal, elsewhere a line every half minute; the rate is that of the scans of this call."""

    def __init__(self, total: int, *, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._quiet, self._clock = total, quiet, clock
        self._done = self._failed = 0
        self._begun = self._shown = clock()
        terminal = sys.stderr.isatty()
        self._bar = (
            tqdm(total=total, bar_format=_BAR, desc="Segmenting", file=sys.stderr, dynamic_ncols=True)
            if terminal and not quiet
            else None
        )

    def __call__(self, outcome: Outcome) -> None:
        """Count a scan."""
        self._done += 1
        self._failed += bool(outcome.code)
        if self._bar is not None:
            self._bar.set_postfix_str(self.text(), refresh=False)
            self._bar.update()
        elif not self._quiet and (self._clock() - self._shown >= _LINE_SECONDS or self._done == self._total):
            self._shown = self._clock()
            print(f"{self._done} of {self._total} scans, {self.text()}", file=sys.stderr, flush=True)

    def text(self) -> str:
        """Such as: 2 failed, 41 scans/h, 16:30:00 left."""
        seconds = max(self._clock() - self._begun, 1e-9)
        rate = self._done / seconds
        left = (self._total - self._done) / rate if self._done else 0.0
        return f"{self._failed} failed, {rate * _HOUR:.3g} scans/h, {tqdm.format_interval(left)} left"

    def close(self) -> None:
        """Leave the bar as it is and end its line."""
        if self._bar is not None:
            self._bar.close()
