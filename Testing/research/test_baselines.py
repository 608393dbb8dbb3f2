"""The time of a baseline: that of one tile times the number of tiles of its sliding window."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.pipeline.tiling import Tiling
from DiffusionSegmentResearch.benchmark import baselines
from DiffusionSegmentResearch.benchmark.baselines import (
    Baseline,
    baseline_row,
    default_baselines,
    diffusion_rows,
    timed_tiles,
)
from DiffusionSegmentResearch.benchmark.ours import Click
from DiffusionSegmentResearch.benchmark.record import BenchmarkRow
from DiffusionSegmentResearch.benchmark.timing import Measured
from torch import nn

CPU = torch.device("cpu")
BODY_MM = (300.0, 360.0, 360.0)
SCAN = (100, 512, 512)


def small(classes: int) -> nn.Module:
    return nn.Conv3d(1, classes, 3, padding=1)


@pytest.mark.parametrize(
    ("spacing_mm", "mirrored", "passes"),
    # 200 x 240 x 240 voxels in steps of 64: 3 tiles an axis. On 3 mm all fits into one tile of 128.
    [(1.5, False, 27), (1.5, True, 216), (3.0, False, 1)],
)
def test_passes_are_counted_over_the_whole_box(spacing_mm: float, mirrored: bool, passes: int) -> None:
    baseline = Baseline(name="small", build=small, side=128, spacing_mm=spacing_mm, mirrored=mirrored)
    assert baseline.tiles(BODY_MM) == passes


def test_a_row_is_extrapolated_from_the_timed_tiles() -> None:
    tile = Measured([1.9, 2.0, 2.4], 2.0, 3.5, 800.4, None, 3.5)
    baseline = Baseline(name="small", build=small, side=128, spacing_mm=1.5)
    row = baseline_row(baseline, tile, scan=SCAN, body_mm=BODY_MM)
    assert (row.timed, row.tiles, row.network_s) == (3, 27, 54.0)
    assert row.processor_s == 94.5
    assert (row.host_mb, row.load, row.click_s) == (800, 3.5, None)


def test_a_network_is_timed_once() -> None:
    built: list[int] = []

    def build(classes: int) -> nn.Module:
        built.append(classes)
        return small(classes)

    rows = [Baseline(name=f"{mm}", build=build, side=16, spacing_mm=mm) for mm in (1.5, 3.0)]
    times = timed_tiles(rows, CPU, classes=14, repeats=2)
    assert built == [14]
    assert times[build, 16].seconds > 0
    assert len(times[build, 16].value) == 2


def test_other_reverse_processes_are_extrapolated_from_our_refiner() -> None:
    tiling = Tiling((64, 64, 112), (64, 64, 64))
    click = Click({}, 1.0, (50, 60, 112), tiling, 1, 1, np.zeros((2, 2, 2), np.uint8))
    stages = {"bodypart": 1.0, "features": 3.0, "refine": 8.0}
    # 2 tiles: 2 passes for the features, 2 x 4 x 2 of the refiner in 8 s.
    ours = BenchmarkRow(
        method="ours", scan=SCAN, spacing_mm=3.0, tiles=18, timed=18, network_s=12.0, stages_s=stages, load=2.0
    )
    plain, started = diffusion_rows(ours, click)
    assert (plain.timed, plain.tiles, plain.network_s) == (16, 2000, 1000.0)
    assert (started.timed, started.tiles, started.network_s) == (18, 3002, 1504.0)
    assert (plain.host_mb, plain.load) == (None, 2.0)


def test_the_default_baselines_are_those_of_the_papers_and_fit_their_tiles() -> None:
    millions = {}
    for baseline in default_baselines(our_spacing_mm=3.0):
        if baseline.build not in millions:
            millions[baseline.build] = sum(weight.numel() for weight in baseline.build(14).parameters()) / 1e6
            assert baseline.side % 32 == 0
    expected = {
        baselines.plain_unet: 31,
        baselines.residual_unet: 102,
        baselines.segresnet: 19,
        baselines.swin_unetr: 62,
    }
    assert {build: round(count) for build, count in millions.items()} == expected


def test_a_missing_package_is_reported_before_any_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "find_spec", lambda name: None)
    with pytest.raises(DiffusionSegmentError, match=r"dynamic_network_architectures is missing") as error:
        baselines.check_packages()
    assert error.value.code is ErrorCode.PACKAGE_MISSING
    assert "--no-baselines" in str(error.value)
