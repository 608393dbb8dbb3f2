"""Estimates of the completed share and the remaining time of a run: from the first measured speed on, without jumps."""

from __future__ import annotations

from itertools import pairwise

import pytest
from DiffusionSegmentBackend.commands.run_estimate import CORRECT_STAGES, SEGMENT_STAGES, RunEstimate

BEFORE = (("start", 6.0), ("load", 1.0), ("read", 2.0), ("prepare", 0.5), ("bodypart", 1.0))


class Run:
    """A run with a simulated clock."""

    def __init__(self, plan: tuple[str, ...] = SEGMENT_STAGES, *, passes: int = 8) -> None:
        self.now = 50.0
        self.estimate = RunEstimate(plan, passes=passes, clock=lambda: self.now)
        self.left: list[float | None] = []
        self.shares: list[float] = []

    def stage(self, name: str, *, units: int, seconds: float) -> None:
        """All units of a stage, `seconds` in total; the estimate is read after each."""
        for done in range(units + 1):
            self.estimate.report(name, done, units)
            self.left.append(self.estimate.seconds_left())
            self.shares.append(self.estimate.share())
            self.now += seconds / units if done < units else 0.0

    def prepared(self) -> Run:
        for name, seconds in BEFORE:
            self.stage(name, units=1, seconds=seconds)
        return self


def test_there_is_no_estimate_before_a_network_has_run() -> None:
    run = Run().prepared()
    assert run.left == [None] * len(run.left)
    assert 0 < run.shares[-1] <= 0.1


def test_the_speed_of_the_features_predicts_that_of_the_samples() -> None:
    """No sample has been drawn yet; a machine that is slow in one stage is slow in the other."""
    quick, slow = Run().prepared(), Run().prepared()
    quick.stage("features", units=10, seconds=5.0)
    slow.stage("features", units=10, seconds=50.0)
    assert quick.left[-1] is not None
    assert slow.left[-1] is not None
    assert slow.left[-1] > 6 * quick.left[-1]


def test_more_samples_take_longer() -> None:
    few, many = Run(passes=1).prepared(), Run(passes=40).prepared()
    for run in (few, many):
        run.stage("features", units=10, seconds=10.0)
    assert few.left[-1] is not None
    assert many.left[-1] is not None
    assert many.left[-1] > 10 * few.left[-1]


def test_a_model_without_a_refiner_has_no_time_for_samples() -> None:
    run = Run(passes=0).prepared()
    run.stage("features", units=10, seconds=10.0)
    assert run.left[-1] is not None
    assert run.left[-1] < 30


def test_a_wrong_first_estimate_is_corrected_by_measured_samples_without_a_jump() -> None:
    run = Run().prepared()
    run.stage("features", units=20, seconds=10.0)
    begun = len(run.left)
    run.stage("refine", units=100, seconds=300.0)
    estimates = [seconds for seconds in run.left[begun:] if seconds is not None]
    assert max(abs(after - before) for before, after in pairwise(estimates)) < 90
    after_half = estimates[50]
    assert after_half == pytest.approx(150.0 + (estimates[-1] or 0.0), rel=0.15)


def test_the_share_never_decreases_and_stays_below_1_until_the_end() -> None:
    run = Run().prepared()
    run.stage("features", units=4, seconds=1.0)
    run.stage("refine", units=4, seconds=400.0)
    run.stage("restore", units=4, seconds=1.0)
    run.stage("write", units=1, seconds=60.0)
    assert all(before <= after for before, after in pairwise(run.shares))
    assert run.shares[-1] < 1


def test_the_remaining_time_decreases_while_a_stage_reports_nothing() -> None:
    run = Run().prepared()
    run.stage("features", units=10, seconds=20.0)
    before = run.estimate.seconds_left()
    run.now += 5.0
    assert before is not None
    assert run.estimate.seconds_left() == pytest.approx(before - 5.0)
    run.now += 10_000.0
    assert run.estimate.seconds_left() == 0.0


def test_skipped_stages_are_not_part_of_the_remaining_time() -> None:
    """A correction of a session that is still there draws no samples of the whole scan."""
    run = Run(CORRECT_STAGES)
    run.stage("read", units=1, seconds=2.0)
    run.stage("correct", units=10, seconds=10.0)
    assert run.left[-1] is not None
    assert run.left[-1] < 15


def test_features_of_each_part_of_a_long_scan_count_as_time_of_its_samples() -> None:
    run = Run().prepared()
    run.stage("features", units=8, seconds=4.0)
    for part in range(2):
        run.estimate.report("features", 4 * part, 8)
        run.stage("refine", units=8, seconds=8.0)
    run.stage("restore", units=1, seconds=1.0)
    seconds = run.estimate.seconds_by_stage()
    assert list(seconds) == [*(name for name, _ in BEFORE), "features", "refine", "restore"]
    assert seconds["features"] == pytest.approx(4.0)
    assert seconds["refine"] == pytest.approx(16.0)
    assert all(before <= after for before, after in pairwise(run.shares))


def test_without_a_plan_the_estimate_is_for_the_stage() -> None:
    run = Run(())
    run.stage("fine_tune", units=10, seconds=10.0)
    assert run.left[3] == pytest.approx(7.0)
    assert run.shares[3] == pytest.approx(0.3)


def test_seconds_by_stage_are_measured_with_the_clock() -> None:
    run = Run().prepared()
    assert run.estimate.seconds_by_stage() == pytest.approx(dict(BEFORE))
    assert run.estimate.elapsed == pytest.approx(sum(seconds for _, seconds in BEFORE))
