"""The evidence page: numbers computed by hand, invalid result files named, and no partial page."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.evaluation.scores import case_means
from DiffusionSegmentResearch.evidence import document
from DiffusionSegmentResearch.evidence.document import write_evidence
from DiffusionSegmentResearch.evidence.results import group_mean, read_result, read_results
from DiffusionSegmentResearch.evidence.tables import markdown_table, points, result_table, significant

REQUIRED = [
    "kind",
    "order",
    "title",
    "question",
    "protocol",
    "command",
    "commit",
    "seed",
    "budget",
    "hardware",
    "rows",
    "answer",
    "shortfalls",
]


def dice(*liver: float, spleen: list[float | None]) -> dict[str, dict[str, float | None]]:
    return {f"case_{n:02d}": {"liver": liver[n], "spleen": spleen[n]} for n in range(len(liver))}


RESULT: dict[str, Any] = {
    "kind": "evidence",
    "order": 20,
    "title": "Frozen features",
    "question": "What are frozen features worth?",
    "protocol": "Three hand-made cases.",
    "command": "make evidence",
    "commit": "abc1234",
    "seed": 0,
    "budget": "10 minutes",
    "hardware": "2 CPU cores",
    "reference": "plain",
    "groups": {"big": ["liver"], "all": ["liver", "spleen"]},
    "rows": [
        {
            "name": "plain",
            "dice": dice(0.9, 0.8, 0.7, spleen=[0.5, None, 0.3]),
            "numbers": {"ECE": 0.04},
            "x": 1,
            "series": "features",
        },
        {
            "name": "better",
            "dice": dice(0.95, 0.85, 0.75, spleen=[0.55, None, 0.35]),
            "surface_dice": dice(0.8, 0.6, 0.4, spleen=[None, None, None]),
            "numbers": {"ECE": 0.012345, "steps": 1234},
            "x": 100,
            "series": "features",
        },
    ],
    "plot": {"x_label": "t of 1000", "log_x": True, "y": "dice", "y_label": "mean Dice"},
    "answer": "Five points.",
    "claims": [{"claim": "better|best", "asked": "3", "here": "5.0", "holds": True}],
    "shortfalls": [],
}


def changed(**keys: Any) -> dict[str, Any]:
    return {**copy.deepcopy(RESULT), **keys}


def write(folder: Path, result: Any, name: str = "frozen.json") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(result), encoding="utf-8")
    return path


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]


def column(table: str, header: str) -> list[str]:
    lines = cells(table)
    index = lines[0].index(header)
    return [line[index] for line in lines[2:]]


def test_a_picture_is_shown_with_its_caption(tmp_path: Path) -> None:
    results = tmp_path / "results"
    picture = {"file": "features/one two.png", "caption": "A [scan]\nbefore."}
    write(results, changed(pictures=[picture]))
    (results / "features").mkdir()
    (results / "features" / "one two.png").write_bytes(b"png")
    write_evidence(results, tmp_path / "EVIDENCE.md")
    page = (tmp_path / "EVIDENCE.md").read_text(encoding="utf-8")
    assert "![A scan before.](results/features/one%20two.png)\n\n*A scan before.*" in page


def test_a_missing_picture_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, changed(pictures=[{"file": "gone.png", "caption": "A scan."}]))
    with pytest.raises(DiffusionSegmentError, match="does not lie beside") as caught:
        read_result(path)
    assert caught.value.code is ErrorCode.INPUT_VALUES


def test_the_table_has_the_values_computed_by_hand(tmp_path: Path) -> None:
    table = result_table(read_result(write(tmp_path, RESULT)))
    assert column(table, "row") == ["plain", "better"]
    assert column(table, "cases") == ["3", "3"]
    # Case values 0.7, 0.8 (liver alone) and 0.5: mean 2/3. With the null as zero it would be 53.3.
    means = column(table, "mean Dice [95 % interval]")
    assert [text.split(" [")[0] for text in means] == ["66.7", "71.7"]
    assert column(table, "median") == ["70.0", "75.0"]
    assert column(table, "surface Dice 2 mm") == ["–", "60.0"]
    assert column(table, "big") == ["80.0", "85.0"]
    # Organs first: (0.8 + 0.4) / 2, not the mean over cases.
    assert column(table, "all") == ["60.0", "65.0"]
    assert column(table, "difference to plain [95 % interval]") == ["reference", "+5.0 [+5.0, +5.0]"]
    assert column(table, "p") == ["–", "–"]
    assert column(table, "ECE") == ["0.0400", "0.0123"]
    assert column(table, "steps") == ["–", "1230"]


def test_the_interval_in_the_table_is_over_cases(tmp_path: Path) -> None:
    text = column(result_table(read_result(write(tmp_path, RESULT))), "mean Dice [95 % interval]")[0]
    low, high = (float(bound) for bound in text.split("[")[1].rstrip("]").split(", "))
    # Three cases: 1 in 27 draws is thrice the worst one, which is more than 2.5 %; the same holds for the best.
    assert (low, high) == (50.0, 80.0)


def test_five_cases_have_a_p(tmp_path: Path) -> None:
    result = changed(groups={})
    liver = np.array([0.5, 0.6, 0.7, 0.8, 0.6])
    gains = np.array([0.01, 0.02, 0.03, 0.04, 0.05])
    result["rows"][0]["dice"] = dice(*liver, spleen=[None] * 5)
    result["rows"][1]["dice"] = dice(*(liver + gains), spleen=[None] * 5)
    table = result_table(read_result(write(tmp_path, result)))
    # Two of the 2**5 patterns of signs.
    assert column(table, "p") == ["–", "0.062"]
    assert column(table, "difference to plain [95 % interval]")[1].startswith("+3.0 [+")


def test_a_difference_is_over_common_cases(tmp_path: Path) -> None:
    result = changed(groups={})
    result["rows"][1]["dice"] = {"case_00": {"liver": 0.8}, "case_09": {"liver": 0.1}}
    table = result_table(read_result(write(tmp_path, result)))
    assert column(table, "difference to plain [95 % interval]")[1] == "-10.0, n = 1"


def test_numbers_alone_need_no_dice_columns(tmp_path: Path) -> None:
    rows = [{"name": "a", "numbers": {"seconds": 12.5, "GB": None}}]
    result = changed(rows=rows, groups={}, reference=None, plot=None)
    assert result_table(read_result(write(tmp_path, result))).splitlines() == [
        "| row | seconds | GB |",
        "| --- | --- | --- |",
        "| a | 12.5 | – |",
    ]


def test_absent_organs_are_ignored_whether_null_or_nan(tmp_path: Path) -> None:
    result = changed(plot=None, groups={})
    result["rows"][0]["dice"] = {"a": {"liver": 0.6, "spleen": float("nan")}, "b": {"liver": None}, "c": {}}
    scores = read_result(write(tmp_path, result)).rows[0].dice
    assert scores is not None
    assert case_means(scores) == {"a": 0.6}
    assert group_mean(scores, ["liver", "spleen"]) == 0.6
    assert group_mean(scores, ["spleen"]) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.04, "0.0400"),
        (1234.0, "1230"),
        (9.996, "10.0"),
        (7.0, "7"),
        (-0.5, "-0.500"),
        (0.0, "0"),
        (2e-7, "2.00e-07"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert significant(value) == text


def test_points_have_one_decimal_and_no_negative_zero() -> None:
    assert points(0.6784) == "67.8"
    assert points(-0.0001, signed=True) == "+0.0"
    assert points(float("nan")) == "–"


def test_cells_of_a_table_are_escaped() -> None:
    assert markdown_table(["a"], [["x|y\nz"]]).splitlines()[2] == "| x\\|y z |"


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_key_is_named_with_its_file(tmp_path: Path, key: str) -> None:
    path = write(tmp_path, {name: value for name, value in RESULT.items() if name != key})
    with pytest.raises(DiffusionSegmentError, match=f'frozen.json: "{key}" is missing') as raised:
        read_result(path)
    assert raised.value.code is ErrorCode.INPUT_VALUES
    assert raised.value.hint


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"rows": [{"numbers": {"a": 1}}]}, r'rows\[0\]: "name" is missing'),
        ({"rows": [{"name": "a"}]}, "neither"),
        ({"rows": []}, "at least one row"),
        ({"rows": [{"name": "a", "numbers": {"s": True}}]}, '"s" must be a number'),
        ({"rows": [{"name": "a", "dice": {"c": {"liver": 67.8}}}]}, r"rows\[0\], dice, c: .*67.8"),
        ({"reference": "absent-row"}, "absent-row"),
        ({"groups": {"big": ["livr"]}}, "livr"),
        ({"plot": {**RESULT["plot"], "y": "seconds"}}, "seconds"),
        ({"plot": {"x_label": "t", "log_x": True, "y": "dice"}}, 'plot: "y_label" is missing'),
        ({"plot": {**RESULT["plot"], "y": "dice by group"}, "groups": {}}, 'by group needs "groups"'),
        ({"claims": [{"claim": "a", "asked": "b", "here": "c"}]}, r'claims\[0\]: "holds" is missing'),
        ({"seed": "0"}, '"seed" must be a whole number'),
        ({"kind": "other"}, '"kind" must be'),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(DiffusionSegmentError, match=problem):
        read_result(write(tmp_path, changed(**keys)))


def test_a_logarithmic_axis_refuses_zero(tmp_path: Path) -> None:
    result = changed()
    result["rows"][0]["x"] = 0
    with pytest.raises(DiffusionSegmentError, match="above 0"):
        read_result(write(tmp_path, result))


def test_other_json_files_are_ignored_and_the_order_is_the_files_own(tmp_path: Path) -> None:
    write(tmp_path, {"model": "abdomen-ct"}, "a.json")
    write(tmp_path, [1, 2], "b.json")
    write(tmp_path, changed(order=30), "c.json")
    write(tmp_path, changed(order=10), "d.json")
    assert [result.stem for result in read_results(tmp_path)] == ["d", "c"]


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DiffusionSegmentError) as raised:
        write_evidence(tmp_path, tmp_path / "EVIDENCE.md")
    assert raised.value.code is ErrorCode.INPUT_MISSING


def test_the_page_holds_every_part_in_order(tmp_path: Path) -> None:
    write(tmp_path / "results", RESULT)
    late = changed(order=30, title="Second", plot=None, claims=[], shortfalls=["No GPU."])
    write(tmp_path / "results", late, "another.json")
    write_evidence(tmp_path / "results", tmp_path / "docs" / "EVIDENCE.md")
    page = (tmp_path / "docs" / "EVIDENCE.md").read_text(encoding="utf-8")
    parts = [
        "make evidence",
        "Claims that hold: 1 of 1.",
        "| better\\|best | 3 | 5.0 | yes |",
        "## Frozen features",
        "What are frozen features worth?",
        "Five points.",
        "| row | cases |",
        "](evidence/frozen.png)",
        "Three hand-made cases.",
        "Nothing left out.",
        "commit `abc1234`, seed 0, 10 minutes, 2 CPU cores",
        "```sh\nmake evidence\n```",
        "## Second",
        "- No GPU.",
    ]
    positions = [page.index(part) for part in parts]
    assert positions == sorted(positions)
    assert sorted(path.name for path in (tmp_path / "docs").rglob("*")) == ["EVIDENCE.md", "evidence", "frozen.png"]


def test_the_page_opens_with_the_claims_that_are_summed_up_those_that_hold_first(tmp_path: Path) -> None:
    claims = [
        {"claim": "a", "asked": "5", "here": "4", "holds": False, "brief": "Dice"},
        {"claim": "b", "asked": "2 s", "here": "1 s", "holds": True, "brief": "Time"},
        {"claim": "c", "asked": "1", "here": "0", "holds": False},
    ]
    write(tmp_path, changed(claims=claims))
    write_evidence(tmp_path, tmp_path / "EVIDENCE.md")
    page = (tmp_path / "EVIDENCE.md").read_text(encoding="utf-8")
    summary = "- Time: **1 s**; asked: 2 s.\n- Dice: **4**; asked: 5. *Does not hold.*\n"
    assert page.startswith("# Evidence\n\n## In a minute\n" + summary)
    table = page[page.index("| claim") : page.index("## Frozen")].strip()
    assert column(table, "claim") == ["b", "a", "c"]


def test_the_plot_has_the_expected_size(tmp_path: Path) -> None:
    write(tmp_path, RESULT)
    write_evidence(tmp_path, tmp_path / "EVIDENCE.md")
    picture = matplotlib.image.imread(tmp_path / "evidence" / "frozen.png")
    assert picture.shape[:2] == (440, 770)
    # White paper with something drawn on it in the first series' blue.
    assert np.allclose(picture[0, 0, :3], 1)
    assert (np.abs(picture[..., :3] - np.array([0x00, 0x72, 0xB2]) / 255).max(axis=-1) < 0.01).sum() > 300


def test_a_plot_by_group_has_a_line_a_group_in_its_own_colour(tmp_path: Path) -> None:
    write(tmp_path, changed(plot={**RESULT["plot"], "y": "dice by group"}))
    write_evidence(tmp_path, tmp_path / "EVIDENCE.md")
    picture = matplotlib.image.imread(tmp_path / "evidence" / "frozen.png")[..., :3]
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (np.abs(picture - np.array(colour) / 255).max(axis=-1) < 0.01).sum() > 300


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "results", RESULT)
    for name in ("one", "two"):
        write_evidence(tmp_path / "results", tmp_path / name / "EVIDENCE.md")
    for file in ("EVIDENCE.md", "evidence/frozen.png"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize("bad", ['{"kind": "evidence"}', '{"kind": '])
def test_an_invalid_file_leaves_the_page_unchanged(tmp_path: Path, bad: str) -> None:
    results, page = tmp_path / "results", tmp_path / "docs" / "EVIDENCE.md"
    write(results, RESULT)
    write_evidence(results, page)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "docs").rglob("*")}
    (results / "late.json").write_text(bad, encoding="utf-8")
    with pytest.raises(DiffusionSegmentError, match=r"late\.json"):
        write_evidence(results, page)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "docs").rglob("*")} == before


def test_a_plot_that_cannot_be_drawn_leaves_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    write(tmp_path / "results", RESULT)
    monkeypatch.setattr(document, "write_plot", full_disk)
    with pytest.raises(DiffusionSegmentError) as raised:
        write_evidence(tmp_path / "results", tmp_path / "docs" / "EVIDENCE.md")
    assert raised.value.code is ErrorCode.DISK_FULL
    assert not list((tmp_path / "docs").iterdir())
