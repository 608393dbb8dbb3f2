"""`compare` of two result files of `evaluate`: pairs by name, intervals, the exact test, and one-line errors."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.evaluation.comparison_files import CSV_COLUMNS
from DiffusionSegmentBackend.evaluation.statistics import holm_adjusted
from fixtures.evaluation_data import ORGANS, MadeUp, strict_json, write_made_up

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "EVALUATION.md"
pytestmark = pytest.mark.filterwarnings("error")

# Six cases: B gains 0.01 to 0.06 on the spleen, loses as much on the right kidney, and the last lacks a left kidney.
A: MadeUp = {
    f"case_{n}": {"spleen": 0.8, "right_kidney": 0.7, "left_kidney": None if n == 6 else 0.5} for n in range(1, 7)
}
B: MadeUp = {
    f"case_{n}": {"spleen": 0.8 + n / 100, "right_kidney": 0.7 - n / 100, "left_kidney": None if n == 6 else 0.6}
    for n in range(6, 0, -1)
}


def compared(tmp_path: Path, a: MadeUp, b: MadeUp, *more: str) -> int:
    """Compare two made-up results as a.json and b.json."""
    files = [write_made_up(tmp_path / f"{name}.json", dice) for name, dice in (("a", a), ("b", b))]
    return main(["compare", *map(str, files), *more])


def test_differences_are_paired_by_case_and_organ(tmp_path: Path) -> None:
    """The two files list their cases in opposite order."""
    assert compared(tmp_path, A, B, "-o", str(tmp_path / "c.json")) == 0
    dice = strict_json(tmp_path / "c.json")["measures"]["dice"]
    spleen = dice["organs"]["spleen"]
    assert (spleen["mean_a"], spleen["mean_b"], spleen["difference"]) == (0.8, 0.835, 0.035)
    low, high = spleen["interval"]
    assert 0.01 <= low < 0.035 < high <= 0.06
    # Six differences of one sign: 2 of the 2**6 patterns of signs are as extreme.
    assert spleen["p"] == pytest.approx(2 / 64)
    assert dice["organs"]["right_kidney"]["difference"] == -0.035
    left = dice["organs"]["left_kidney"]
    assert (left["cases"], left["difference"]) == (5, 0.1)
    assert left["interval"] == pytest.approx([0.1, 0.1])
    # The case means differ by a third of the left kidney's 0.1, and by nothing in the case without one.
    assert dice["difference"] == pytest.approx(5 / 6 * 0.1 / 3, abs=1e-4)
    assert (dice["mean_a"], dice["cases"]) == (pytest.approx((5 * 2 / 3 + 0.75) / 6, abs=1e-4), 6)


def test_p_values_of_organs_are_adjusted_for_their_number(tmp_path: Path) -> None:
    compared(tmp_path, A, B, "-o", str(tmp_path / "c.json"))
    organs = strict_json(tmp_path / "c.json")["measures"]["dice"]["organs"]
    assert [organs[name]["p_holm"] for name in ORGANS] == pytest.approx([3 / 32, 3 / 32, 3 / 32])
    assert holm_adjusted([0.04, None, 0.01, 0.5]) == pytest.approx([0.08, None, 0.03, 0.5])
    assert holm_adjusted([0.9, 0.8]) == [1.0, 1.0]


def test_few_cases_have_a_difference_but_no_p(tmp_path: Path) -> None:
    few = {name: A[name] for name in ("case_1",)}
    assert compared(tmp_path, few, B, "-o", str(tmp_path / "c.json")) == 0
    values = strict_json(tmp_path / "c.json")
    spleen = values["measures"]["dice"]["organs"]["spleen"]
    assert (spleen["cases"], spleen["p"], spleen["p_holm"], spleen["interval"]) == (1, None, None, None)
    assert spleen["difference"] == 0.01
    assert (values["cases"], values["only_a"]) == (["case_1"], [])
    assert values["only_b"] == [f"case_{n}" for n in range(6, 1, -1)]


def test_equal_results_do_not_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compared(tmp_path, A, A) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("spleen"))
    assert row.split() == ["spleen", "0.800", "0.800", "+0.000", "[+0.000,", "+0.000]", "–", "–", "6"]


def test_tables_are_printed_and_written_as_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = {**B, "extra": {"spleen": 0.1}}
    assert compared(tmp_path, A, more, "-o", str(tmp_path / "c.json")) == 0
    printed = capsys.readouterr().out
    assert "6 cases in both. Only in B: extra." in printed
    assert "surface Dice 2 mm" in printed
    spleen = next(line for line in printed.splitlines() if line.startswith("spleen"))
    assert spleen.split()[:4] == ["spleen", "0.800", "0.835", "+0.035"]
    with open(tmp_path / "c.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == CSV_COLUMNS
    names = [(row["measure"], row["organ"]) for row in rows]
    assert names == [(m, o) for m in ("dice", "surface_dice_2mm") for o in ("all", *ORGANS)]
    assert [row["difference"] for row in rows[:2]] == ["0.0278", "0.035"]
    assert rows[5]["mean_b"] == "0.4175"


def test_variants_are_chosen_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_made_up(tmp_path / "a.json", A, variant="ensemble")
    b = write_made_up(tmp_path / "b.json", B, variant="segmenter")
    assert main(["compare", str(a), str(b)]) == 0
    printed = capsys.readouterr().out
    assert "A: made-up, ensemble" in printed
    assert "B: made-up, segmenter" in printed
    assert main(["compare", str(a), str(b), "--variant", "ensemble,segmenter"]) == 0
    assert capsys.readouterr().out == printed
    assert main(["compare", str(a), str(b), "--variant", "probe"]) == 2
    assert "a.json holds no variant 'probe'. It holds ensemble alone." in capsys.readouterr().err
    assert main(["compare", str(a), str(b), "--variant", "a,b,c"]) == 2
    assert "not one variant or two" in capsys.readouterr().err


OLDER = {"model": "abdomen-ct", "mean_dice": {"probe": 0.8}, "by_case": [{"name": "a", "dice": {"probe": [0.8]}}]}
NAN = '{"format": "diffusion-segment evaluation", "format_version": 1, "mean_dice": NaN}'
NEWER = {"format": "diffusion-segment evaluation", "format_version": 7}
DAMAGED = {**NEWER, "format_version": 1, "model": "m", "variants": ["probe"], "by_case": {"a": {}}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(OLDER), "was written by an older version, which did not name organs. Run `evaluate` again."),
        (json.dumps({"kind": "evidence", "rows": []}), "is not a result of `evaluate`. Name JSON files"),
        ("[1, 2]", "is not a result of `evaluate`."),
        ("case,organ,variant\n", "cannot be read (it is not JSON). Name JSON files"),
        (NAN, "cannot be read (it is not JSON)."),
        (json.dumps(NEWER), "has the format version 7, and this program reads 1."),
        (json.dumps(DAMAGED), "is damaged"),
        (None, "does not exist."),
    ],
)
def test_other_files_are_refused_with_a_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, message: str
) -> None:
    good, other = write_made_up(tmp_path / "a.json", A), tmp_path / "other.json"
    if content is not None:
        other.write_text(content, encoding="utf-8")
    for order in ((good, other), (other, good)):
        assert main(["compare", *map(str, order), "-o", str(tmp_path / "c.json")]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert f"{other} {message}" in lines[0]
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize(
    ("b", "message"),
    [
        ({"other": {"spleen": 0.5}}, "share no case. Evaluate both on the same scans"),
        ({"case_1": {"liver": 0.5}}, "share no organ"),
        ({"case_1": {"spleen": None}}, "case_1 has other true labels in the two files: spleen of 100 and 0 mL."),
    ],
)
def test_results_without_a_pair_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], b: MadeUp, message: str
) -> None:
    a = write_made_up(tmp_path / "a.json", A)
    other = write_made_up(tmp_path / "b.json", b, organs=list(next(iter(b.values()))))
    assert main(["compare", str(a), str(other)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_the_document_describes_every_key_and_column(tmp_path: Path) -> None:
    compared(tmp_path, A, B, "-o", str(tmp_path / "c.json"))
    values = strict_json(tmp_path / "c.json")
    dice = values["measures"]["dice"]
    text = DOCUMENT.read_text(encoding="utf-8")
    keys = [*values, *values["a"], *dice, *dice["organs"]["spleen"], *CSV_COLUMNS]
    assert [key for key in keys if f"`{key}`" not in text] == []
