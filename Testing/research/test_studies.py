"""The studies behind the evidence page, on phantoms."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.models.manifest import ModelDescription, read_description
from DiffusionSegmentBackend.models.model import find_model
from DiffusionSegmentBackend.networks.backbone import Backbone
from DiffusionSegmentBackend.networks.pointwise_probe import LinearProbe, NonLinearProbe
from DiffusionSegmentBackend.networks.refiner import Refiner
from DiffusionSegmentBackend.phantom.phantom import make_phantom
from DiffusionSegmentBackend.pipeline.prepare import windowed
from DiffusionSegmentBackend.training.loop import Budget
from DiffusionSegmentResearch.evidence.results import read_result
from DiffusionSegmentResearch.studies.bodypart import voxels_in_order
from DiffusionSegmentResearch.studies.few_labels import label_rows, starts_of
from DiffusionSegmentResearch.studies.frozen_features import Cohort, cross_validation_jobs, measure
from DiffusionSegmentResearch.studies.frozen_probes import weighted_loss
from DiffusionSegmentResearch.studies.recycling import chains_of, recycling_rows
from DiffusionSegmentResearch.studies.refinement import Chain, RefinerUnderTest, organ_dropped
from DiffusionSegmentResearch.studies.result_file import StudyDescription, StudyRow, organ_table, write_study
from DiffusionSegmentResearch.studies.starts import start_rows
from DiffusionSegmentResearch.studies.voxel_features import FeatureSource, tiles, whole_scan_table
from numpy.typing import NDArray

SPACING = (6.0, 6.0, 6.0)
CHANNELS = (8, 8, 16)
ORGANS = ("spleen", "liver")


def phantom_case(seed: int) -> Case:
    phantom = make_phantom(seed=seed, spacing_mm=SPACING)
    grid = model_grid(Volume(phantom.image, phantom.index_to_lps), spacing=SPACING)
    image = windowed(grid.to_grid(phantom.image), (-125.0, 275.0))
    organs = grid.labels_to_grid(phantom.labels)
    labels = np.select([organs == 1, organs == 6], [1, 2], 0).astype(np.uint8)
    positions = np.stack(np.meshgrid(*[np.arange(n) * 6.0 for n in image.shape], indexing="ij"))
    centred = positions - positions.mean(axis=(1, 2, 3), keepdims=True)
    return Case(f"phantom_{seed}", image, labels, grid, coordinates=centred[::-1].astype(np.float16))


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [phantom_case(seed) for seed in range(2)]


def prior_of(case: Case) -> NDArray[np.float16]:
    hot = np.eye(3, dtype=np.float16)[case.labels]
    return np.moveaxis(0.8 * hot + np.float16(0.2 / 3), -1, 0).astype(np.float16)


@pytest.fixture(scope="module")
def description() -> ModelDescription:
    return read_description(find_model("abdomen-ct"))


def under_test(description: ModelDescription) -> RefinerUnderTest:
    torch.manual_seed(0)
    backbone = Backbone(CHANNELS).eval().requires_grad_(False)
    refiner = Refiner(CHANNELS[:2], 3, channels=(8, 8)).eval().requires_grad_(False)
    return RefinerUnderTest("tiny", description, backbone, refiner)


def test_tiles_cover_every_body_voxel_once(cases: list[Case]) -> None:
    counts = np.zeros(cases[0].image.shape, int)
    for tile, in_tile, in_case in tiles(cases[0], FeatureSource(None)):
        assert np.array_equal(tile.image[0, 0].numpy()[tuple(in_tile.T)], cases[0].image[tuple(in_case.T)])
        counts[tuple(in_case.T)] += 1
    assert np.array_equal(counts, (cases[0].image > -0.95).astype(int))


def test_every_second_voxel_is_tested_with_its_own_label(cases: list[Case]) -> None:
    table = whole_scan_table(cases[0], FeatureSource(None), stride=2)
    body = cases[0].image[::2, ::2] > -0.95
    assert len(table.labels) == body.sum()
    assert np.array_equal(np.bincount(table.labels), np.bincount(cases[0].labels[::2, ::2][body]))


def test_probes_segment_organs_by_intensity_and_position(cases: list[Case]) -> None:
    cohort = Cohort(cases, 1, ORGANS)
    jobs = cross_validation_jobs(cohort, folds=2, heads=("nonlinear",))
    assert [job.test for job in jobs] == [(0,), (1,)]
    (row,) = measure(FeatureSource(None), cohort, jobs, patches=6)
    assert row.dice is not None
    assert set(row.dice) == {"phantom_0", "phantom_1"}
    assert min(table["liver"] or 0 for table in row.dice.values()) > 0.5


@pytest.mark.parametrize("probe", [LinearProbe((4, 8, 16), 3), NonLinearProbe((4, 8, 16), 3)])
def test_a_pointwise_probe_learns_a_level(probe: torch.nn.Module) -> None:
    x = torch.randn(256, 28, generator=torch.Generator().manual_seed(0))
    labels = (x[:, 12] > 0).long() + 1
    optimizer = torch.optim.Adam(probe.parameters(), lr=1e-2)
    for _ in range(150):
        loss = weighted_loss(probe(x), labels, torch.ones(256))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float((probe.eval()(x).argmax(dim=1) == labels).float().mean()) > 0.9


def test_chains_start_as_in_training() -> None:
    assert [chain.abar_start for chain in chains_of("deterministic", 0.2)] == [1.0]
    assert {chain.sampler for chain in chains_of("recycling", 0.2)} == {"ddim", "ddpm"}
    assert [chain.abar_start for chain in chains_of("standard", 0.2)] == [0.0, 0.2]


def test_recycling_rows_hold_every_step_and_case(cases: list[Case], description: ModelDescription) -> None:
    models = [(under_test(description), "standard", 0.2)]
    rows = recycling_rows(models, cases, [prior_of(case) for case in cases], ORGANS)
    assert rows[0].name == "pre-segmentation"
    assert rows[0].dice is not None
    assert rows[0].dice["phantom_0"] == {"spleen": 1.0, "liver": 1.0}
    steps = [row.x for row in rows if row.series == "tiny, from T'"]
    assert steps == [1, 2, 3, 4, 5]
    assert sum(row.name.endswith("ensemble") for row in rows) == 2


def test_start_rows_hold_the_dice_of_a_dropped_organ(cases: list[Case], description: ModelDescription) -> None:
    prior = prior_of(cases[0])
    assert organ_dropped(prior, 1)[1].max() == 0
    np.testing.assert_allclose(organ_dropped(prior, 1).sum(axis=0), prior.sum(axis=0), atol=2e-3)
    chains = [Chain("one", 0.2, 1), Chain("many", 0.2, 3), Chain("two samples", 0.2, 1, samples=2)]
    rows = start_rows(under_test(description), cases[:1], [prior], ORGANS, dropped=1, chains=chains)
    assert [(row.x, row.series) for row in rows] == [(1, "abar 0.2"), (3, "abar 0.2"), (None, None)]
    assert list(rows[0].numbers) == ["Dice of the dropped spleen"]
    assert rows[1].numbers == {}


def test_few_labels_keep_a_frozen_backbone_and_train_the_others(cases: list[Case], tmp_path: Path) -> None:
    torch.manual_seed(1)
    pretrained = Backbone(CHANNELS)
    before = {name: value.clone() for name, value in pretrained.state_dict().items()}
    starts = starts_of({"diffusion": pretrained}, seed=0)
    assert [start.name for start in starts] == ["from scratch", "diffusion, fine-tuned", "diffusion, frozen"]
    cohort, budget = Cohort(cases, 1, ORGANS), Budget(steps=3, learning_rate=1e-2, ema_decay=0.0)
    rows = label_rows(starts, cohort, budget=budget, folder=tmp_path, labelled=(1,), patch=32)
    assert [(row.name, row.x) for row in rows] == [(f"{start.name}, 1 labelled", 1) for start in starts]
    assert all(row.dice is not None and set(row.dice) == {"phantom_1"} for row in rows)
    assert all(torch.equal(value, before[name]) for name, value in pretrained.state_dict().items())
    changed = {
        folder.name: any(
            not torch.equal(value, before[name.removeprefix("backbone.")])
            for name, value in torch.load(folder / "checkpoint.pt", weights_only=True)["network"].items()
            if name.startswith("backbone.")
        )
        for folder in tmp_path.iterdir()
    }
    assert changed == {"from-scratch-1": True, "diffusion-fine-tuned-1": True, "diffusion-frozen-1": False}


def test_few_labels_resume_from_their_checkpoints(cases: list[Case], tmp_path: Path) -> None:
    cohort, starts = Cohort(cases, 1, ORGANS), starts_of({"diffusion": Backbone(CHANNELS)}, seed=0)[:1]
    budget, checkpoint = Budget(steps=3), tmp_path / "from-scratch-1" / "checkpoint.pt"
    first = label_rows(starts, cohort, budget=budget, folder=tmp_path, labelled=(1,), patch=32)
    spent = torch.load(checkpoint, weights_only=True)["seconds"]
    assert label_rows(starts, cohort, budget=budget, folder=tmp_path, labelled=(1,), patch=32) == first
    assert torch.load(checkpoint, weights_only=True)["seconds"] == spent


def test_order_is_the_share_of_increasing_coordinates() -> None:
    z, y, x = torch.meshgrid(*[torch.arange(12.0)] * 3, indexing="ij")
    body = torch.ones(12, 12, 12, dtype=torch.bool)
    assert voxels_in_order(torch.stack([x, y, z]), body).tolist() == [1, 1, 1]
    assert voxels_in_order(torch.stack([x, -y, z]), body).tolist() == [1, 0, 1]


def test_a_result_file_keeps_texts_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    rows = [StudyRow("a", dice={"case": organ_table([0.5, np.nan], ORGANS)}, numbers={"seconds": 2.0})]
    description = StudyDescription(order=1, title="T", question="Q?", protocol="P", budget="B")
    write_study(path, rows, description, command="c")
    raw = json.loads(path.read_text(encoding="utf-8"))
    assert raw["rows"][0]["dice"] == {"case": {"spleen": 0.5, "liver": None}}
    path.write_text(json.dumps({**raw, "answer": "Yes.", "shortfalls": ["few cases"]}), encoding="utf-8")
    write_study(path, [replace(rows[0], name="b")], description, command="c")
    result = read_result(path)
    assert (result.answer, list(result.shortfalls), result.rows[0].name) == ("Yes.", ["few cases"], "b")
