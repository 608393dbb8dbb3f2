"""What is done is not done again; what changed is."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from DiffusionSegmentBackend.cohort.journal import read_journal
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.schema.run_options import RunOptions
from fixtures.cohorts import PROCESSES, rows_by_name, run_stand_in, stand_in_options, write_scans


def finished(output: Path) -> dict[str, int]:
    """The time of each result by the name of its scan."""
    return {
        name: (output / "scans" / row["scan_id"] / "report.json").stat().st_mtime_ns
        for name, row in rows_by_name(output).items()
        if row["status"] == "done"
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_scans(tmp_path / "scans", {"a": "", "b": "x", "bad": "bug"})


def test_a_second_run_does_nothing(source: Path, tmp_path: Path) -> None:
    run_stand_in(source, tmp_path / "out")
    before, tables = finished(tmp_path / "out"), (tmp_path / "out" / "organs.csv").read_bytes()

    def never(*_: object) -> None:
        pytest.fail("workers were started")

    assert run_stand_in(source, tmp_path / "out", resume=True, start=never) == 1  # type: ignore[arg-type]
    assert finished(tmp_path / "out") == before
    assert (tmp_path / "out" / "organs.csv").read_bytes() == tables


def test_a_scan_whose_bytes_changed_is_segmented_again_and_one_with_another_time_is_not(
    source: Path, tmp_path: Path
) -> None:
    run_stand_in(source, tmp_path / "out")
    before = finished(tmp_path / "out")
    os.utime(source / "a.nii", (0, 0))
    (source / "b.nii").write_text("y")
    run_stand_in(source, tmp_path / "out", resume=True)
    after = finished(tmp_path / "out")
    assert after["a"] == before["a"]
    assert after["b"] != before["b"]
    journal = read_journal(tmp_path / "out" / "private" / "journal.jsonl")
    kept = [outcome for outcome in journal.values() if outcome.kept]
    assert len(kept) == 1
    assert kept[0].shape == (3, 4, 5)


@pytest.mark.parametrize(
    ("changed", "again"), [({"seed": 5}, True), ({"samples": 3}, True), ({"device": "cpu"}, False)]
)
def test_options_that_change_the_result_segment_all_scans_again(
    source: Path, tmp_path: Path, changed: dict[str, object], again: bool
) -> None:
    run_stand_in(source, tmp_path / "out")
    before = finished(tmp_path / "out")
    run_stand_in(source, tmp_path / "out", resume=True, run=replace(RunOptions(), **changed))
    assert (finished(tmp_path / "out") != before) is again


def test_a_result_that_was_deleted_is_made_again(source: Path, tmp_path: Path) -> None:
    run_stand_in(source, tmp_path / "out")
    name = rows_by_name(tmp_path / "out")["a"]["scan_id"]
    (tmp_path / "out" / "scans" / name / "report.json").unlink()
    run_stand_in(source, tmp_path / "out", resume=True)
    assert "a" in finished(tmp_path / "out")


def test_failed_scans_are_tried_again_only_if_asked(source: Path, tmp_path: Path) -> None:
    run_stand_in(source, tmp_path / "out")
    stamp = (source / "bad.nii").stat()
    journal = tmp_path / "out" / "private" / "journal.jsonl"
    run_stand_in(source, tmp_path / "out", resume=True)
    lines = len(journal.read_bytes().splitlines())
    run_stand_in(source, tmp_path / "out", resume=True, retry_failed=True)
    assert (source / "bad.nii").stat().st_mtime_ns == stamp.st_mtime_ns
    assert (lines, len(journal.read_bytes().splitlines())) == (3, 4)


def test_a_folder_with_a_cohort_or_other_files_is_not_written_to(source: Path, tmp_path: Path) -> None:
    run_stand_in(source, tmp_path / "out")
    with pytest.raises(DiffusionSegmentError, match="--resume") as caught:
        run_stand_in(source, tmp_path / "out")
    assert caught.value.code is ErrorCode.OUTPUT_UNWRITABLE
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(DiffusionSegmentError, match="holds files"):
        run_stand_in(source, tmp_path / "mine")


def test_an_interrupt_leaves_tables_of_what_is_done(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from DiffusionSegmentBackend.cohort import run

    options = stand_in_options(source, tmp_path / "out", workers=1)
    counted: list[object] = []

    class Interrupting(run.CohortProgress):
        def __call__(self, outcome: object) -> None:
            counted.append(outcome)
            if len(counted) == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(run, "CohortProgress", Interrupting)
    with pytest.raises(DiffusionSegmentError, match="Stopped") as caught:
        run.run_cohort(options, PROCESSES)
    assert caught.value.exit_status == 130
    statuses = sorted(row["status"] for row in rows_by_name(tmp_path / "out").values())
    assert statuses == ["done", "done", "waiting"]
