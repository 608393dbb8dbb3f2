"""The estimate of the time left: from the pace and from the last run, without jumps, None where it is unknown."""

from __future__ import annotations

from itertools import pairwise

import pytest
from DiffusionSegmentLib.panel.time_left import TimeLeft, roundedSeconds


class Run:
    """Runs with a simulated clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.left = TimeLeft(lambda: self.now)

    def stage(self, name: str, total: int, pace: float) -> list[float | None]:
        """All units of a stage, `pace` seconds each; what was estimated after each, before the first too."""
        reported = [self.left.update(name, 0, total)]
        for done in range(1, total + 1):
            self.now += pace
            reported.append(self.left.update(name, done, total))
        return reported

    def whole(self, kind: str, *stages: tuple[str, int, float]) -> list[float | None]:
        self.left.start(kind)
        reported = [seconds for stage in stages for seconds in self.stage(*stage)]
        self.left.finish()
        return reported


@pytest.fixture
def run() -> Run:
    return Run()


def test_before_the_first_unit_there_is_no_estimate(run: Run) -> None:
    run.left.start("abdomen")
    assert run.left.update("refine", 0, 8) is None
    run.now += 3.0
    assert run.left.update("refine", 0, 8) is None


def test_a_steady_pace_gives_the_rest_of_the_stage(run: Run) -> None:
    run.left.start("abdomen")
    reported = run.stage("refine", 10, 2.0)
    assert reported[0] is None
    assert reported[1:] == pytest.approx([18.0, 16.0, 14.0, 12.0, 10.0, 8.0, 6.0, 4.0, 2.0, 0.0])


def test_a_few_milliseconds_give_no_estimate(run: Run) -> None:
    run.left.start("abdomen")
    assert run.stage("refine", 100, 0.001)[5] is None


def test_a_first_run_estimates_the_present_stage_only(run: Run) -> None:
    run.left.start("abdomen")
    run.stage("features", 4, 1.0)
    reported = run.stage("refine", 4, 5.0)
    assert reported[0] is None
    assert reported[1:] == pytest.approx([15.0, 10.0, 5.0, 0.0])


def test_after_a_whole_run_the_next_is_estimated_from_its_first_message(run: Run) -> None:
    run.whole("abdomen", ("load", 1, 2.0), ("features", 4, 1.0), ("refine", 4, 5.0))
    run.left.start("abdomen")
    assert run.left.update("load", 0, 1) == pytest.approx(26.0)


def test_a_skipped_stage_is_not_counted(run: Run) -> None:
    """The model is warm: nothing is loaded."""
    run.whole("abdomen", ("load", 1, 60.0), ("features", 4, 1.0), ("refine", 4, 5.0))
    run.left.start("abdomen")
    assert run.left.update("features", 0, 4) == pytest.approx(24.0)


def test_more_units_than_last_time_take_longer(run: Run) -> None:
    run.whole("abdomen", ("refine", 4, 5.0))
    run.left.start("abdomen")
    assert run.left.update("refine", 0, 8) == pytest.approx(40.0)


def test_the_estimate_adapts_to_a_slower_second_run_without_a_jump(run: Run) -> None:
    run.whole("abdomen", ("refine", 20, 1.0))
    run.left.start("abdomen")
    reported = [seconds for seconds in run.stage("refine", 20, 2.0) if seconds is not None]
    assert reported[0] == pytest.approx(20.0)
    jumps = [abs(after - before) for before, after in pairwise(reported)]
    assert max(jumps) < 5.0
    assert reported[-3] == pytest.approx(4.0, abs=2.0)


def test_one_slow_unit_moves_the_estimate_by_less_than_its_pace_would(run: Run) -> None:
    run.left.start("abdomen")
    before = run.stage("refine", 20, 1.0)[5]
    run.left.start("abdomen")
    for done in range(6):
        before = run.left.update("refine", done, 20)
        run.now += 1.0
    run.now += 9.0
    after = run.left.update("refine", 6, 20)
    assert before is not None
    assert after is not None
    paced = 16.0 / 6 * 14
    assert before - 10.0 < after < before + 0.5 * (paced - before)


def test_the_estimate_is_never_negative(run: Run) -> None:
    run.whole("abdomen", ("refine", 4, 1.0))
    run.left.start("abdomen")
    run.left.update("refine", 0, 4)
    run.now += 500.0
    assert run.left.update("refine", 0, 4) == 0.0


def test_estimates_of_two_models_are_independent(run: Run) -> None:
    run.whole("abdomen", ("refine", 4, 5.0))
    run.left.start("head")
    assert run.left.update("refine", 0, 4) is None


def test_an_unfinished_run_is_not_used(run: Run) -> None:
    run.left.start("abdomen")
    run.stage("features", 4, 1.0)
    run.left.start("abdomen")
    assert run.left.update("features", 0, 4) is None


def test_runs_without_a_kind_estimate_the_present_stage_only(run: Run) -> None:
    run.whole("", ("correct", 4, 1.0), ("deliver", 1, 9.0))
    run.left.start("")
    assert run.stage("correct", 4, 1.0)[2] == pytest.approx(2.0)


def test_a_stage_without_units_gives_no_estimate(run: Run) -> None:
    run.left.start("abdomen")
    run.now += 2.0
    assert run.left.update("load", 0, 0) is None


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0, 1), (0.4, 1), (3.6, 4), (9.9, 10), (12.0, 10), (13.0, 15), (58.9, 60), (94.0, 90)]
)
def test_seconds_are_rounded(seconds: float, shown: int) -> None:
    assert roundedSeconds(seconds) == shown
