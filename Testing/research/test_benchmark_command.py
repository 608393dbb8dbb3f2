"""The benchmark from the command to the page, with tiny networks on a tiny scan."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.models.model import load_model
from DiffusionSegmentResearch.benchmark.baselines import Baseline
from DiffusionSegmentResearch.benchmark.command import BenchmarkOptions, configuration_of, run_benchmark
from DiffusionSegmentResearch.benchmark.growth import can_draw, draw_growth
from DiffusionSegmentResearch.benchmark.ours import our_rows
from DiffusionSegmentResearch.benchmark.record import BenchmarkRow, joined, read_benchmark
from DiffusionSegmentResearch.benchmark.scans import benchmark_scan
from DiffusionSegmentResearch.benchmark.table import write_performance_page
from DiffusionSegmentResearch.cli.main import main
from PIL import Image
from torch import nn

SMALL = 24
TINY = Baseline(name="small | net", build=lambda classes: nn.Conv3d(1, classes, 1), side=16, spacing_mm=6.0)


@pytest.fixture(scope="module")
def options(model_folder: Path) -> BenchmarkOptions:
    return BenchmarkOptions(
        model=str(model_folder),
        device="cpu",
        slices=(20,),
        in_plane=SMALL,
        configurations=("1x1", "1x2"),
        timed_tiles=2,
    )


@pytest.fixture(scope="module")
def result(options: BenchmarkOptions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("results") / "performance.json"
    run_benchmark(path, options, baselines=[TINY], log=lambda text: None)
    return path


def test_our_rows_have_every_stage_and_count_every_pass(model_folder: Path) -> None:
    volume = benchmark_scan(20, seed=0, in_plane=SMALL)
    rows, click = our_rows(volume, lambda: load_model(str(model_folder), "cpu"), [(2, 1), (1, 1)], seed=0, start_s=50.0)
    tiles = len(click.tiling.tiles)
    assert [row.method for row in rows] == [
        "DiffusionSegment, K = 2, S = 1",
        "DiffusionSegment, K = 1, S = 1",
        "DiffusionSegment, review",
    ]
    assert [row.tiles for row in rows[:2]] == [tiles * 3, tiles * 2]
    assert rows[2].tiles <= tiles * 3
    for row in rows:
        assert row.timed == row.tiles
        assert set(row.stages_s) == {"prepare", "bodypart", "features", "refine", "restore"}
        networks = row.stages_s["bodypart"] + row.stages_s["features"] + row.stages_s["refine"]
        assert row.network_s == pytest.approx(networks, abs=0.002)
        assert row.click_s is not None
        assert row.click_s >= sum(row.stages_s.values()) - 0.01
        assert row.host_mb is not None
        assert row.host_mb > 50
    assert rows[0].first_click_s is not None
    assert rows[0].first_click_s > 50
    assert rows[1].first_click_s is None


def test_a_run_measures_all_methods_and_lists_omitted_scans(result: Path) -> None:
    benchmark = read_benchmark(result)
    methods = [row.method for row in benchmark.rows]
    assert methods == [
        "DiffusionSegment, K = 1, S = 1",
        "DiffusionSegment, K = 1, S = 2",
        "DiffusionSegment, review",
        "plain DDPM, 1000 steps",
        "PD-DDPM, 300 steps x 5",
        "small | net",
    ]
    assert {row.scan for row in benchmark.rows} == {(20, SMALL, SMALL)}
    assert benchmark.not_run == ["100 slices", "300 slices", "800 slices"]
    assert "--slices 20" in benchmark.command
    assert benchmark.rows[-1].timed == 2


def test_answer_and_ideas_are_kept_by_a_second_run(result: Path, options: BenchmarkOptions, tmp_path: Path) -> None:
    path = tmp_path / "performance.json"
    raw = json.loads(result.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**raw, "answer": "Fast.", "ideas": ["half precision"]}), encoding="utf-8")
    benchmark = run_benchmark(path, replace(options, configurations=("1x1",)), baselines=[], log=lambda text: None)
    assert (benchmark.answer, benchmark.ideas) == ("Fast.", ["half precision"])
    assert [row.method for row in read_benchmark(path).rows] == [row.method for row in benchmark.rows]
    assert benchmark.not_run[0] == "other networks"


def test_rows_of_another_scan_can_be_added_and_a_row_measured_again_is_replaced(result: Path) -> None:
    first = read_benchmark(result)
    again = [replace(first.rows[0], network_s=7.0), replace(first.rows[0], scan=(100, SMALL, SMALL))]
    both = joined(first, replace(first, rows=again, command="second"))
    assert len(both.rows) == len(first.rows) + 1
    assert next(row.network_s for row in both.rows if row.method == first.rows[0].method) == 7.0
    assert both.rows[-1].scan == (100, SMALL, SMALL)
    assert both.not_run == ["300 slices", "800 slices"]
    assert both.command.splitlines() == [first.command, "second"]


def test_rows_of_another_machine_are_not_added(result: Path, options: BenchmarkOptions, tmp_path: Path) -> None:
    path = tmp_path / "performance.json"
    raw = json.loads(result.read_text(encoding="utf-8"))
    text = json.dumps({**raw, "hardware": "another"})
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DiffusionSegmentError, match="hardware another") as error:
        run_benchmark(path, replace(options, add=True), baselines=[])
    assert error.value.code is ErrorCode.OPTION
    assert path.read_text(encoding="utf-8") == text


def test_the_page_shows_every_row_and_the_command(result: Path, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "PERFORMANCE.md"
    write_performance_page(result, page)
    text = page.read_text(encoding="utf-8")
    benchmark = read_benchmark(result)
    table = [line for line in text.splitlines() if line.startswith("| 24 x 24 x 20 |")]
    assert len(table) == len(benchmark.rows) + 3
    assert "small \\| net" in text
    assert f"| {benchmark.rows[-1].timed} of {benchmark.rows[-1].tiles} |" in text
    assert "device memory" not in text.partition("## What a click costs")[2]
    assert "random\nweights" in text or "random weights" in text
    assert "**Not run.** 100 slices, 300 slices, 800 slices." in text
    assert benchmark.command in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "evidence"}, '"kind"'),
        ({"rows": []}, '"rows"'),
        ({"rows": [3]}, "an object"),
        ({"threads": None, "novelty": 1}, '"novelty" is unknown'),
        ({"rows": [{"method": "a"}]}, '"network_s" is missing'),
    ],
)
def test_an_incomplete_file_is_refused(result: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "performance.json"
    path.write_text(json.dumps({**json.loads(result.read_text(encoding="utf-8")), **change}), encoding="utf-8")
    with pytest.raises(DiffusionSegmentError) as error:
        read_benchmark(path)
    assert error.value.code is ErrorCode.INPUT_VALUES
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"), [("scan", [1, 2]), ("network_s", -1), ("tiles", "many"), ("load", True), ("click_s", "soon")]
)
def test_a_wrong_value_of_a_row_is_named(result: Path, tmp_path: Path, key: str, value: Any) -> None:
    path = tmp_path / "performance.json"
    raw = json.loads(result.read_text(encoding="utf-8"))
    raw["rows"][1][key] = value
    path.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(DiffusionSegmentError, match=rf'rows\[1\]: "{key}"') as error:
        read_benchmark(path)
    assert error.value.code is ErrorCode.INPUT_VALUES


@pytest.mark.parametrize("text", ["4by2", "0x1", "4x", "", "4x2x1"])
def test_a_configuration_is_samples_x_steps(text: str) -> None:
    assert configuration_of("8x5") == (8, 5)
    with pytest.raises(DiffusionSegmentError) as error:
        configuration_of(text)
    assert error.value.code is ErrorCode.OPTION


def test_the_commands_report_errors_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "performance.json")
    assert main(["benchmark", "-o", output, "--configurations", "many"]) == 2
    assert main(["benchmark", "-o", output, "--tiles", "0"]) == 2
    assert main(["benchmark", "-o", output, "--no-baselines", "--model", "unknown-model"]) == 3
    assert main(["performance", "--results", output, "-o", str(tmp_path / "page.md")]) == 2
    codes = [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()]
    assert codes == ["OPTION", "OPTION", "MODEL_UNKNOWN", "INPUT_MISSING"]
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_kind_is_not_overwritten(options: BenchmarkOptions, tmp_path: Path) -> None:
    path = tmp_path / "models.json"
    path.write_text('{"kind": "evidence"}', encoding="utf-8")
    with pytest.raises(DiffusionSegmentError):
        run_benchmark(path, options, baselines=[])
    assert path.read_text(encoding="utf-8") == '{"kind": "evidence"}'


def test_growth_is_drawn_for_two_or_more_scans(tmp_path: Path) -> None:
    row = BenchmarkRow(
        method="DiffusionSegment, K = 4, S = 2",
        scan=(100, 512, 512),
        spacing_mm=3.0,
        tiles=9,
        timed=9,
        network_s=1.0,
        click_s=2.0,
        host_mb=900,
    )
    baseline = replace(row, method="nnU-Net", scan=(800, 512, 512), click_s=None)
    assert not can_draw([row, baseline])
    rows = [row, replace(row, scan=(300, 512, 512), click_s=6.0), replace(row, method="DiffusionSegment, K = 1, S = 1")]
    assert can_draw(rows)
    draw_growth(rows, tmp_path / "growth.png")
    with Image.open(tmp_path / "growth.png") as picture:
        assert picture.width > 800
        inked = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    # Both lines, in their colours.
    for colour in ((0, 114, 178), (213, 94, 0)):
        assert int((np.abs(inked.astype(int) - colour).sum(axis=1) < 12).sum()) > 50
