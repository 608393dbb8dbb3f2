"""Memory is predicted before a run and limited: too little memory gives a run in parts or an error message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import DiffusionSegmentBackend
import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.models.model import Model
from DiffusionSegmentBackend.models.pre_segmenter import Footprint
from DiffusionSegmentBackend.models.tile_shape import TileShape
from DiffusionSegmentBackend.pipeline import memory, segment
from DiffusionSegmentBackend.pipeline.memory import (
    MemoryPlan,
    RunSize,
    choose_memory_plan,
    needed_bytes,
    on_disk,
    with_fallback,
)
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.parts import parts_of
from DiffusionSegmentBackend.pipeline.segment import build_segmentation, open_session
from DiffusionSegmentBackend.pipeline.tiling import Tiling

SIZE = RunSize(
    scan_voxels=512 * 512 * 800,
    grid_voxels=120 * 120 * 267,
    box=(267, 70, 94),
    classes=14,
    samples=4,
    bodypart=False,
    tile=TileShape.cube(64),
    footprint=Footprint(tile_bytes=27e6, pass_bytes=110e6),
    keeps_features=True,
)
MEASURED = """
import json, sys, threading, time
import torch
from DiffusionSegmentResearch.benchmark.scans import benchmark_scan
from DiffusionSegmentBackend.pipeline.memory import resident_bytes
from DiffusionSegmentBackend.models.model import load_model
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.models.pre_segmenter import Footprint
from DiffusionSegmentBackend.pipeline.segment import build_segmentation, open_session

torch.set_num_threads(1)
scan, model = benchmark_scan(80, seed=0, in_plane=384), load_model("abdomen-ct", "cpu")
peak, done = [0], threading.Event()

def watch():
    while not done.wait(0.01):
        peak[0] = max(peak[0], resident_bytes())

threading.Thread(target=watch, daemon=True).start()
session = open_session(scan, model, SegmentOptions(samples=1, steps=1, force=True))
build_segmentation(session, model, bodypart=False)
done.set()
print(json.dumps([session.memory_plan.bytes, peak[0]]))
"""


def test_maps_that_stay_on_the_grid_need_no_memory_of_the_size_of_the_scan() -> None:
    restored, on_grid = (
        needed_bytes(replace(SIZE, maps_on_grid=grid, samples=1, box=(64, 64, 64)), max_slices=None, on_disk=False)
        for grid in (False, True)
    )
    assert restored - on_grid == 8 * SIZE.scan_voxels


@pytest.mark.parametrize(
    ("depth", "max_slices"), [(64, None), (267, 160), (300, 112), (667, 112), (113, 112), (200, 64)]
)
def test_parts_cover_every_slice_once_and_have_context(depth: int, max_slices: int | None) -> None:
    parts = parts_of(depth, max_slices, TileShape.cube(64))
    covered = np.concatenate([np.arange(depth)[part.core] for part in parts])
    assert covered.tolist() == list(range(depth))
    for part in parts:
        assert part.input.stop - part.input.start >= 64
        assert part.input.stop - part.input.start <= max(max_slices or depth, 112) + 63
        assert part.input.start <= max(0, part.core.start - 16)
        assert part.input.stop >= min(depth, part.core.stop + 16)
    rows = {tile[0].start for tile in Tiling((depth, 64, 64), (64, 64, 64)).tiles}
    inner = {
        part.input.start + tile[0].start
        for part in parts
        for tile in Tiling((part.input.stop - part.input.start, 64, 64), (64, 64, 64)).tiles
    }
    assert inner == rows


def test_a_run_in_parts_and_on_disk_gives_the_same_result(
    model: Model, phantom_ct: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    middle = phantom_ct.array[:, 20:84, 30:94]
    long = Volume(np.concatenate([middle, middle[::-1]]), phantom_ct.index_to_lps)
    options = SegmentOptions(samples=1, steps=1, force=True)
    whole = build_segmentation(open_session(long, model, options), model, bodypart=False)
    monkeypatch.setattr(segment, "choose_memory_plan", lambda size, limit_gb: MemoryPlan(112, True, 1))
    session = open_session(long, model, options)
    assert session.prediction.ensemble.dtype is torch.float16
    parts = build_segmentation(session, model, bodypart=False, folder=tmp_path)
    organs = whole.labels > 0
    assert float(np.mean(parts.labels[organs] == whole.labels[organs])) > 0.999
    # In half precision a voxel may fall on the other side of an island's edge, which changes its uncertainty.
    assert float(np.mean(np.abs(parts.uncertainty - whole.uncertainty) > 0.01)) < 1e-4
    assert isinstance(parts.uncertainty, np.memmap)
    assert list(tmp_path.iterdir()) == []
    assert "processed in parts" in parts.report.warnings[0]
    assert not any("parts" in warning for warning in whole.report.warnings)


def test_smaller_parts_and_maps_on_disk_need_less_memory() -> None:
    needs = [
        needed_bytes(SIZE, max_slices=max_slices, on_disk=disk)
        for max_slices, disk in ((None, False), (None, True), (160, True), (112, True))
    ]
    assert needs == sorted(needs, reverse=True)
    assert len(set(needs)) == len(needs)


def test_the_fastest_plan_within_the_limit_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "resident_bytes", lambda: 800_000_000)
    assert choose_memory_plan(SIZE, limit_gb=8.0).max_slices is None
    assert not choose_memory_plan(SIZE, limit_gb=8.0).on_disk
    assert choose_memory_plan(SIZE, limit_gb=2.4) == MemoryPlan(
        None, True, needed_bytes(SIZE, max_slices=None, on_disk=True)
    )
    assert choose_memory_plan(SIZE, limit_gb=1.9).max_slices in memory._PART_DEPTHS
    with pytest.raises(
        DiffusionSegmentError, match=r"needs \d\.\d GB of memory, but only 1\.0 GB may be used"
    ) as caught:
        choose_memory_plan(SIZE, limit_gb=1.0)
    assert caught.value.code is ErrorCode.OUT_OF_MEMORY
    with pytest.raises(DiffusionSegmentError, match="is too low"):
        choose_memory_plan(SIZE, limit_gb=0.0)


def test_without_a_limit_available_memory_is_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 10**8)
    with pytest.raises(DiffusionSegmentError, match="region of interest"):
        choose_memory_plan(SIZE, limit_gb=None)
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    assert choose_memory_plan(SIZE, limit_gb=None).max_slices is None


@pytest.mark.slow
def test_the_predicted_peak_is_within_20_percent_of_the_measured_one() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(DiffusionSegmentBackend.__file__).parents[1])}
    command = [sys.executable, "-c", MEASURED]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=True)
    predicted, measured = json.loads(done.stdout)
    assert predicted == pytest.approx(measured, rel=0.2)


def test_a_map_on_disk_is_initially_zero_and_leaves_no_file(tmp_path: Path) -> None:
    array = on_disk(tmp_path)((3, 4), np.float32)
    assert not array.any()
    array[1, 2] = 5
    assert list(tmp_path.iterdir()) == []
    assert array[1, 2] == 5


@pytest.mark.parametrize(
    ("failures", "expected", "words"),
    [
        (0, [(None, "cuda")], ""),
        (1, [(None, "cuda"), (112, "cuda")], "in parts"),
        (2, [(None, "cuda"), (112, "cuda"), (None, "cpu")], "processor"),
    ],
)
def test_a_gpu_out_of_memory_falls_back_to_parts_then_to_the_cpu(
    model: Model, failures: int, expected: list[tuple[int | None, str]], words: str
) -> None:
    tried = []

    def run(on: Model, max_slices: int | None) -> str:
        tried.append((max_slices, on.device.type))
        if len(tried) <= failures:
            raise torch.OutOfMemoryError
        return "result"

    result, notice = with_fallback(replace(model, device=torch.device("cuda")), None, run)
    assert (result, tried) == ("result", expected)
    assert words in notice
    assert bool(notice) == bool(failures)


def test_the_cpu_has_no_fallback(model: Model) -> None:
    def run(on: Model, max_slices: int | None) -> str:
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        with_fallback(model, None, run)


def test_available_memory_is_the_minimum_over_cgroups_including_cache(tmp_path: Path) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("0::/machine/unit\n", encoding="utf-8")
    for folder, limit, used, cached in (("machine", "9000", 1000, 0), ("machine/unit", "4000", 3500, 2000)):
        (root / folder).mkdir(parents=True)
        (root / folder / "memory.max").write_text(limit, encoding="ascii")
        (root / folder / "memory.current").write_text(str(used), encoding="ascii")
        (root / folder / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\n", encoding="ascii")
    assert memory._cgroup_bytes(root, own) == 2500
    (root / "machine/unit/memory.max").write_text("max\n", encoding="ascii")
    assert memory._cgroup_bytes(root, own) == 8000
    assert memory._cgroup_bytes(root, tmp_path / "none") is None
