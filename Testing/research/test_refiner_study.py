"""The study of refiners: its data, its measures of samples, and what they say of deleted organs and of errors."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.models.model import load_model
from DiffusionSegmentBackend.models.tile_shape import TileShape
from DiffusionSegmentBackend.training.degraded_scans import presegmented
from DiffusionSegmentResearch.label_diffusion import inference, training
from DiffusionSegmentResearch.label_diffusion.network import LabelDenoiser
from DiffusionSegmentResearch.label_diffusion.process import Process
from DiffusionSegmentResearch.studies import refiner, refiner_data
from DiffusionSegmentResearch.studies.refiner import HALF_SHOWN, RefinerBench, Variant, disagreement_looks
from DiffusionSegmentResearch.studies.refiner_data import (
    PresegmentedCase,
    ensemble_maps,
    training_cases,
    validation_cases,
)
from DiffusionSegmentResearch.studies.registry import STUDIES
from DiffusionSegmentResearch.studies.study import StudyOptions, StudyRequest
from fixtures.evaluation_data import write_labelled_phantoms
from fixtures.segmenter_data import CLASSES, small_volume
from fixtures.tiny_model import write_tiny_model

ORGANS = ("spleen", "right_kidney")


def perfect(volume_name: str = "a") -> PresegmentedCase:
    """A case whose pre-segmentation is its label map."""
    volume = small_volume(volume_name)
    case = Case(
        name=volume.name,
        image=volume.image.numpy(),
        labels=volume.labels.numpy(),
        grid=volume.grid,
        offset=volume.offset,
        coordinates=np.zeros((3, *volume.image.shape), np.float16),
    )
    return PresegmentedCase(case, np.eye(CLASSES, dtype=np.float16)[case.labels].transpose(3, 0, 1, 2))


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "_TILE", TileShape.cube(8))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three phantoms with the organs of the tiny model, one of them for validation."""
    folder = write_labelled_phantoms(tmp_path / "data", {"0": 0, "1": 1, "2": 2})
    parts = {"train": ["0", "1"], "validation": ["2"]}
    (folder / "splits.json").write_text(json.dumps(parts), encoding="utf-8")
    return folder


@pytest.fixture
def request_of_study(data: Path, tmp_path: Path) -> StudyRequest:
    models = (write_tiny_model(tmp_path / "a"), write_tiny_model(tmp_path / "b"))
    options = StudyOptions(trainings=tmp_path / "trainings", minutes=0.01)
    return StudyRequest(STUDIES["refiner"], models, (data,), tmp_path / "refiner.json", options)


def test_a_training_case_is_listed_twice_with_what_is_found_in_degraded_images(
    request_of_study: StudyRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(str(request_of_study.models[0]), "cpu")
    training = training_cases(request_of_study, model)
    assert [item.case.name for item in training] == ["0", "0", "1", "1"]
    for item in training:
        assert item.presegmentation.shape == (model.description.classes, *item.case.labels.shape)
        assert item.presegmentation.dtype == np.float16
    assert (training[0].presegmentation != training[1].presegmentation).any()
    np.testing.assert_array_equal(training[0].case.image, training[1].case.image)

    def refuse(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(refiner_data, "presegmented", refuse)
    again = training_cases(request_of_study, model)
    np.testing.assert_array_equal(again[3].presegmentation, training[3].presegmentation)


def test_validation_cases_are_not_degraded_and_every_model_is_of_the_ensemble(request_of_study: StudyRequest) -> None:
    model, other = (load_model(str(folder), "cpu") for folder in request_of_study.models)
    (item,) = validation_cases(request_of_study, model)
    assert item.case.name == "2"
    np.testing.assert_array_equal(item.presegmentation, presegmented(item.case, model).half().numpy())
    (members,) = ensemble_maps([item], [other]).values()
    np.testing.assert_array_equal(members[0], item.presegmentation)
    np.testing.assert_array_equal(members[1], presegmented(item.case, other).half().numpy())


@pytest.mark.usefixtures("small_tiles")
def test_the_study_has_two_rows_for_each_refiner_and_one_for_the_ensemble(
    request_of_study: StudyRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "PATCH", 16)
    monkeypatch.setattr(refiner, "LabelDenoiser", partial(LabelDenoiser, channels=(8, 8)))
    result = refiner.study(request_of_study)
    names = [row.name for row in result.rows]
    assert len(names) == 2 * len(refiner.VARIANTS) + 1
    assert names[-1] == "ensemble of 2 models"
    for row in result.rows:
        assert row.numbers is not None
        assert {"Dice of the pre-segmentation", "Dice", "spread-skill ratio"} <= set(row.numbers)


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
