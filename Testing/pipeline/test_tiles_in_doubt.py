"""Samples are drawn where the pre-segmentation is in doubt; elsewhere it is every sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from DiffusionSegmentBackend.models.model import Model, load_model
from DiffusionSegmentBackend.pipeline.features import Stage1, first_stage
from DiffusionSegmentBackend.pipeline.options import SegmentOptions, run_plan_of
from DiffusionSegmentBackend.pipeline.prediction import refine
from DiffusionSegmentBackend.pipeline.refinement import CERTAIN_PROBABILITY, MIN_SHARE_IN_DOUBT, TileChains, is_in_doubt
from DiffusionSegmentBackend.pipeline.sampling import SamplingPlan

SIDE, LENGTH = 32, 56


@pytest.fixture(scope="module")
def tiny(models: Path) -> Model:
    model = load_model(str(models / "tiny"), "cpu", precision="float32")
    assert model.refiner is not None
    torch.manual_seed(3)
    torch.nn.init.normal_(model.refiner.head.weight, std=0.5)
    return model


@pytest.fixture(scope="module")
def stage(tiny: Model) -> Iterator[Stage1]:
    """Two tiles, the first without any doubt."""
    with torch.inference_mode():
        image = torch.rand((LENGTH, SIDE, SIDE), generator=torch.Generator().manual_seed(0)) - 0.5
        stage = first_stage(image, torch.zeros((3, *image.shape)), tiny, progress=lambda *_: None)
        pre = stage.pre.clone()
        pre[:, :SIDE] = 0.0
        pre[0, :SIDE] = 1.0
        yield replace(stage, pre=pre)


def plan(model: Model) -> SamplingPlan:
    return SamplingPlan.of(run_plan_of(SegmentOptions(), model))


def test_a_tile_is_in_doubt_where_enough_voxels_have_no_probable_class() -> None:
    pre = torch.zeros((2, 10, 10, 10))
    pre[0] = CERTAIN_PROBABILITY
    few = round(MIN_SHARE_IN_DOUBT * 1000)
    pre[0].view(-1)[: few - 1] = CERTAIN_PROBABILITY - 0.01
    assert not is_in_doubt(pre)
    pre[0].view(-1)[:few] = CERTAIN_PROBABILITY - 0.01
    assert is_in_doubt(pre)


def test_a_tile_without_doubt_keeps_its_presegmentation_and_costs_nothing(tiny: Model, stage: Stage1) -> None:
    assert tiny.refiner is not None
    calls = 0

    def tick() -> None:
        nonlocal calls
        calls += 1

    assert [tile[0].start for tile in stage.tiling.tiles] == [0, LENGTH - SIDE]
    with torch.inference_mode():
        doubt = TileChains(stage, tiny.refiner, tiny.device, tiny.dtype, only_in_doubt=True, tick=tick)
        every = TileChains(stage, tiny.refiner, tiny.device, tiny.dtype)
        sample, full = (chains.sample(plan(tiny), sample=0) for chains in (doubt, every))
    assert doubt.sampled == [False, True]
    assert every.sampled == [True, True]
    assert calls == plan(tiny).steps
    only_first, only_second = slice(0, LENGTH - SIDE), slice(SIDE, LENGTH)
    torch.testing.assert_close(sample[:, only_first], stage.pre[:, only_first])
    torch.testing.assert_close(sample[:, only_second], full[:, only_second])
    assert not torch.allclose(sample[:, only_first], full[:, only_first], atol=0.05)


def test_a_scan_without_doubt_has_samples_without_any_pass(tiny: Model, stage: Stage1) -> None:
    certain = torch.zeros_like(stage.pre)
    certain[0] = 1.0
    progress: list[tuple[int, int]] = []
    with torch.inference_mode():
        statistics = refine(
            replace(stage, pre=certain),
            tiny,
            plan(tiny),
            samples=2,
            only_in_doubt=True,
            progress=lambda _, done, total: progress.append((done, total)),
        )
    torch.testing.assert_close(statistics.mean, certain)
    assert float(statistics.mutual_information.max()) == 0.0
    assert progress == [(1, 1)]
