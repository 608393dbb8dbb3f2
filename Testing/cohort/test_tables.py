"""Rows: volumes that were not measured are null, identifiers are pseudonyms, no text becomes a formula."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest
from DiffusionSegmentBackend.cohort.columns import ORGANS, REGIONS, SCANS
from DiffusionSegmentBackend.cohort.rows import organ_rows, review_priorities, volume_norms
from DiffusionSegmentBackend.cohort.tables import csv_cell
from DiffusionSegmentBackend.models.manifest import find_model, read_description
from DiffusionSegmentBackend.schema.report import OrganResult, Report
from fixtures.cohorts import read_rows, rows_by_name, run_stand_in, write_scans

CANARY = "Hieronymus"


def organ(name: str, volume: float) -> OrganResult:
    return OrganResult(
        name=name,
        title=name,
        value=1,
        volume_ml=volume,
        volume_interval_ml=(0.9 * volume, 1.1 * volume),
        confidence=0.8,
    )


def test_an_organ_that_is_cut_or_outside_of_the_scan_has_no_volume_and_an_absent_one_has_none_at_all() -> None:
    labels = {label.name: label for label in read_description(find_model("abdomen-ct")).labels}
    levels = {name: label.body_mm[2] for name, label in labels.items() if label.body_mm is not None}
    names = sorted(levels, key=levels.__getitem__)
    below, lowest, between, highest = names[0], names[1], names[2], names[-1]
    report = replace(
        Report.from_partial_json({}),
        organs=(organ(below, 0), organ(lowest, 100), organ(between, 0), organ(highest, 200), organ("cut", 50)),
    )
    rows = {row["organ"]: row for row in organ_rows("1", report, ("cut",), labels, {})}
    assert {name: (row["state"], row["volume_ml"]) for name, row in rows.items()} == {
        below: ("outside", None),
        lowest: ("measured", 100),
        between: ("absent", 0),
        highest: ("measured", 200),
        "cut": ("cut", None),
    }
    assert rows["cut"]["volume_ml_p05"] is None
    assert rows["cut"]["volume_ml_p95"] is None


def test_the_deviation_of_a_volume_is_robust_against_outliers() -> None:
    volumes = [100.0, 104.0, 96.0, 102.0, 98.0, 101.0, 99.0, 103.0, 97.0, 1000.0]
    norms = volume_norms({"spleen": volumes, "liver": volumes[:9]})
    assert set(norms) == {"spleen"}
    assert norms["spleen"].z(1000.0) > 20
    assert abs(norms["spleen"].z(104.0)) < 2


def test_the_scan_that_is_worst_by_all_criteria_has_priority_one() -> None:
    rows = [
        {"status": "done", "expected_wrong_ml": n, "confidence": 1 - n / 100, "alarms": n, "max_volume_z": n}
        for n in (1, 3, 2)
    ]
    assert review_priorities([*rows, {"status": "failed"}]) == [0.0, 1.0, 0.5, None]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_spreadsheet_computes_nothing(text: str) -> None:
    assert csv_cell(text) == f"'{text}"


def test_numbers_keep_their_sign_and_null_is_empty() -> None:
    assert (csv_cell(-1.5), csv_cell(None), csv_cell(0), csv_cell("liver")) == ("-1.5", "", "0", "liver")


def test_parquet_and_csv_hold_the_same_rows_with_types_and_nulls(tmp_path: Path) -> None:
    source = write_scans(tmp_path / "scans", {"a": "cut", "b": "no kidney", "bad": "bug"})
    run_stand_in(source, tmp_path / "out")
    for name, columns in (("scans", SCANS), ("organs", ORGANS), ("regions", REGIONS)):
        table = pyarrow.parquet.read_table(tmp_path / "out" / f"{name}.parquet")
        rows = read_rows(tmp_path / "out" / f"{name}.csv")
        assert table.num_rows == len(rows)
        assert table.column_names[: len(columns)] == [column.name for column in columns]
        assert table.schema.metadata[b"model"] == b"abdomen-ct"
        for values, row in zip(table.to_pylist(), rows, strict=True):
            assert {key: "" if value is None else csv_cell(value) for key, value in values.items()} == row
    organs = {(row["scan_id"], row["organ"]): row for row in read_rows(tmp_path / "out" / "organs.csv")}
    scans = rows_by_name(tmp_path / "out")
    assert organs[scans["a"]["scan_id"], "spleen"]["volume_ml"] == ""
    assert organs[scans["a"]["scan_id"], "left_kidney"]["volume_ml"] != ""
    described = {(row["table"], row["column"]) for row in read_rows(tmp_path / "out" / "codebook.csv")}
    assert {("organs", column.name) for column in ORGANS} <= described


def test_tables_are_the_same_whatever_the_order_in_which_scans_ended(tmp_path: Path) -> None:
    source = write_scans(tmp_path / "scans", {f"s{n}": str(n) for n in range(8)})
    run_stand_in(source, tmp_path / "one", workers=1)
    key = tmp_path / "one" / "private" / "pseudonym.key"
    run_stand_in(source, tmp_path / "two", workers=3, pseudonym_key=key)
    for name in ("organs.csv", "organs.parquet", "regions.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_nothing_outside_of_the_private_folder_names_the_input(tmp_path: Path) -> None:
    source = write_scans(tmp_path / f"{CANARY} 1950", {f"{CANARY}-liver": "", "bad": "chest"})
    output = tmp_path / "out"
    run_stand_in(source, output, identifiers=False)
    private = output / "private"
    shared = [path for path in output.rglob("*") if path.is_file() and private not in path.parents]
    assert len(shared) > 6
    assert [path.name for path in shared if CANARY.encode() in path.read_bytes()] == []
    assert not any(CANARY in str(path.relative_to(output)) for path in output.rglob("*"))
    assert CANARY.encode() in (private / "inputs.csv").read_bytes()
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    for name in ("pseudonym.key", "journal.jsonl"):
        assert stat.S_IMODE((private / name).stat().st_mode) == 0o600


def test_another_cohort_has_other_pseudonyms_unless_it_has_the_same_key(tmp_path: Path) -> None:
    source = write_scans(tmp_path / "scans", {"a": ""})
    ids = []
    for name in ("one", "two", "three"):
        key = tmp_path / "one" / "private" / "pseudonym.key" if name == "three" else None
        run_stand_in(source, tmp_path / name, pseudonym_key=key)
        ids.append(read_rows(tmp_path / name / "scans.csv")[0]["scan_id"])
    assert ids[0] != ids[1]
    assert ids[0] == ids[2]
