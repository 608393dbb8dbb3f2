"""The study of refiners: its data, its measures of samples, and what they say of deleted organs and of errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.models.tile_shape import TileShape
from DiffusionSegmentResearch.label_diffusion import inference
from DiffusionSegmentResearch.label_diffusion.network import LabelDenoiser
from DiffusionSegmentResearch.label_diffusion.process import Process
from DiffusionSegmentResearch.studies import bakeoff_data, out_of_fold_maps, refiner, refiner_data
from DiffusionSegmentResearch.studies.bakeoff import BakeoffData
from DiffusionSegmentResearch.studies.bakeoff_data import BakeoffSetup, read_setup
from DiffusionSegmentResearch.studies.refiner import HALF_SHOWN, RefinerBench, Variant, disagreement_looks
from DiffusionSegmentResearch.studies.refiner_data import PresegmentedCase, coarse_case, ensemble_maps
from DiffusionSegmentResearch.studies.registry import STUDIES
from DiffusionSegmentResearch.studies.study import StudyOptions, StudyRequest
from fixtures.segmenter_data import CLASSES, small_volume
from fixtures.small_bakeoff import plan_in

ORGANS = ("spleen", "right_kidney")


def perfect(volume_name: str = "a") -> PresegmentedCase:
    """A case whose pre-segmentation is its label map."""
    case = coarse_case(small_volume(volume_name))
    return PresegmentedCase(case, np.eye(CLASSES, dtype=np.float16)[case.labels].transpose(3, 0, 1, 2))


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "_TILE", TileShape.cube(8))


def test_a_coarse_case_has_the_labels_of_most_sub_voxels_and_body_coordinates_in_mm() -> None:
    volume = small_volume("a")
    case = coarse_case(volume)
    z, y, x = volume.image.shape
    assert case.image.shape == case.labels.shape == (z, y // 2, x // 2)
    assert case.coordinates is not None
    assert case.coordinates.shape == (3, *case.image.shape)
    for value in range(1, CLASSES):
        fine = np.count_nonzero(volume.labels.numpy() == value)
        assert np.count_nonzero(case.labels == value) * 4 == pytest.approx(fine, rel=0.15)


@pytest.mark.usefixtures("small_arms")
def test_training_cases_have_maps_of_the_trunk_and_held_out_ones_of_the_control_arm(
    tmp_path: Path, data: BakeoffData, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = BakeoffSetup(data, plan_in(tmp_path / "trainings"), fold=1)
    prepared = refiner_data.refiner_data(setup)
    assert [item.case.name for item in prepared.training] == ["a", "b"]
    assert [item.case.name for item in prepared.held_out] == ["held_out"]
    for item in (*prepared.training, *prepared.held_out):
        assert item.presegmentation.shape == (CLASSES, *item.case.labels.shape)
    assert (tmp_path / "trainings" / "trunk" / "a.npy").is_file()
    assert (tmp_path / "trainings" / "control" / "held_out.npy").is_file()
    (members,) = ensemble_maps(setup).values()
    assert [member.shape for member in members] == [prepared.held_out[0].presegmentation.shape] * 3
    np.testing.assert_array_equal(members[1], prepared.held_out[0].presegmentation)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(out_of_fold_maps, "whole_scan_probabilities", refuse)
    again = refiner_data.refiner_data(setup)
    np.testing.assert_array_equal(again.training[0].presegmentation, prepared.training[0].presegmentation)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("process", [Process(), None])
def test_a_case_is_measured_by_its_samples_with_deleted_organs_too(process: Process | None) -> None:
    torch.manual_seed(0)
    network = LabelDenoiser(CLASSES, channels=(8, 8), rank=0 if process else 2).eval()
    bench = RefinerBench(network, Variant("tiny", "tiny", process), HALF_SHOWN, ORGANS)
    measures = bench.measures(perfect())
    assert measures["start_dice"] == 1
    assert len(measures["volumes_ml"][0]) == len(HALF_SHOWN)
    assert [entry["organ"] for entry in measures["deleted"]] == list(ORGANS)
    row = refiner._row("tiny", {"a": measures}, ORGANS)
    assert row.numbers is not None
    assert {"Dice", "spread-skill ratio", "best of K less control", "of undropped"} <= set(row.numbers)


def test_errors_that_samples_disagree_on_are_seen_by_disagreement_and_certain_ones_are_not() -> None:
    truth = np.zeros((32, 32, 32), np.uint8)
    truth[4:14, 4:14, 4:14] = 1
    labels = truth.copy()
    labels[4:9, 4:14, 4:14] = 0
    mean = np.eye(2, dtype=np.float32)[labels].transpose(3, 0, 1, 2)
    spacing = (3.0, 3.0, 3.0)
    seen = disagreement_looks(mean, [labels, truth], truth, spacing)
    assert seen == {"disagreement": 1.0, "expected error": 0.0}
    assert disagreement_looks(mean, [labels, labels], truth, spacing)["disagreement"] == 0.0
    assert disagreement_looks(mean, [labels], labels, spacing)["disagreement"] is None


def test_minutes_of_another_training_do_not_continue_the_arms(
    tmp_path: Path, data: BakeoffData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bakeoff_data, "read_bakeoff_data", lambda *_, **__: (data, None))
    monkeypatch.setattr(StudyRequest, "description", data.description)
    options = StudyOptions(trainings=tmp_path, minutes=99.0)
    request = StudyRequest(STUDIES["refiner"], (tmp_path,), (tmp_path,), tmp_path / "x.json", options)
    assert read_setup(request, arm_minutes=bakeoff_data.ARM_MINUTES).plan.arm_minutes == bakeoff_data.ARM_MINUTES
    assert read_setup(request).plan.arm_minutes == 99.0
