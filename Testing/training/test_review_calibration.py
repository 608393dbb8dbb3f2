"""Margins and probability of regions in model.json, from the files of out-of-fold predictions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.models.model import find_model
from DiffusionSegmentBackend.training.new_model import new_description
from DiffusionSegmentBackend.training.whole_model.fold_networks import read_prediction, write_prediction
from DiffusionSegmentBackend.training.whole_model.model_folder import ModelFolder
from DiffusionSegmentBackend.training.whole_model.model_run import ModelRun
from DiffusionSegmentBackend.training.whole_model.out_of_fold import OutOfFold, pooled_labels
from DiffusionSegmentBackend.training.whole_model.review_calibration import (
    label_margins,
    region_probability,
    volume_tail,
)

LIVER, CLASSES = 6, 14
SCANS = 10


def prediction(seed: int) -> OutOfFold:
    """A liver with a gross error and a region that is uncertain and correct, both of random size."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((24, 32, 32), np.uint8)
    truth[2:22, 2:30, 2:30] = LIVER
    probabilities = np.zeros((CLASSES, *truth.shape), np.float32)
    np.put_along_axis(probabilities, truth[None].astype(np.intp), 1.0, axis=0)
    for x, p in ((3, rng.uniform(0.55, 0.68)), (24, rng.uniform(0.22, 0.3))):
        box = np.s_[8:14, 12 : 15 + rng.integers(3), x : x + 5]
        probabilities[(LIVER, *box)], probabilities[(0, *box)] = 1 - p, p
    dilations = np.full(CLASSES - 1, np.nan)
    dilations[LIVER - 1] = seed
    return OutOfFold(
        dice=np.ones(CLASSES - 1),
        log_probabilities=np.zeros((CLASSES, 1), np.float32),
        labels=np.zeros(1, np.uint8),
        on_trunk=probabilities.astype(np.float16),
        truth=truth,
        dilations_mm=dilations,
    )


@pytest.fixture
def run(tmp_path: Path) -> ModelRun:
    """A training after its folds, with the labels of abdomen-ct and ten held-out scans."""
    folder = ModelFolder(tmp_path / "model")
    folder.path.mkdir()
    shutil.copy(find_model("abdomen-ct") / "model.json", folder.path / "model.json")
    names = [f"case_{n}" for n in range(SCANS)]
    folder.finish("folds", folds={"1": names})
    stub = SimpleNamespace(folder=folder, options=SimpleNamespace(seed=0), bar=SimpleNamespace(note=lambda text: None))
    for number, name in enumerate(names):
        write_prediction(cast(ModelRun, stub), name, prediction(number))
    return cast(ModelRun, stub)


def test_margins_are_those_of_the_organs_that_enough_scans_show(run: ModelRun) -> None:
    labels = label_margins(run)
    assert [label["name"] for label in labels if "margin" in label] == ["liver"]
    margin = labels[LIVER - 1]["margin"]
    assert margin == {"mm": 9.0, "contained": 0.99, "coverage": 0.9, "scans": SCANS, "missed": 0}
    run.folder.change(labels=labels)
    assert run.folder.description.labels[LIVER - 1].margin is not None


def test_a_region_with_a_gross_error_is_more_probable(run: ModelRun) -> None:
    calibrated = region_probability(run, temperature=1.0)
    assert calibrated is not None
    assert calibrated.own is not None
    assert calibrated.own.scans == SCANS
    assert calibrated.own.weights["mean_error"] > 0


def test_the_tail_of_volumes_is_that_of_the_worst_of_ten_livers() -> None:
    """The gross errors have a probability of 0.55 to 0.68, at which the intervals have to leave them out."""
    predictions = [prediction(seed) for seed in range(SCANS)]
    calibration = volume_tail(predictions, temperature=1.0)
    assert calibration is not None
    assert (calibration.organs, calibration.contained) == (SCANS, 1.0)
    assert 0.3 < calibration.tail < 0.46
    softer = volume_tail(predictions, temperature=2.0)
    assert softer is not None
    assert softer.tail != calibration.tail


def test_predictions_of_an_older_version_have_neither(run: ModelRun) -> None:
    for number in range(SCANS):
        whole = prediction(number)
        older = OutOfFold(whole.dice, whole.log_probabilities, whole.labels, whole.on_trunk)
        write_prediction(run, f"case_{number}", older)
    assert read_prediction(run, "case_0").truth is None
    assert not any("margin" in label for label in label_margins(run))
    assert region_probability(run, temperature=1.0) is None
    assert volume_tail([read_prediction(run, "case_0")], temperature=1.0) is None


def test_a_new_training_does_not_inherit_a_calibration(run: ModelRun) -> None:
    calibrated = {"region_probability": {"own": {"intercept": 0.0, "weights": {}}}, "volume_tail": 0.1}
    run.folder.change(labels=label_margins(run), **calibrated)
    raw: dict[str, Any] = new_description(run.folder.description, folder_name="other", own=False)
    assert "margin" in json.dumps(run.folder.description.raw)
    assert "margin" not in json.dumps(raw)
    assert not calibrated.keys() & raw.keys()


def test_a_pooled_label_is_that_of_most_voxels_and_the_lowest_of_equal_ones() -> None:
    labels = torch.tensor([[[1, 1, 2, 2], [1, 0, 2, 0]], [[0, 3, 2, 3], [1, 3, 3, 3]]], dtype=torch.uint8)
    pooled = pooled_labels(labels, (2, 2, 2))
    assert pooled.dtype == torch.uint8
    assert pooled.tolist() == [[[1, 2]]]
    assert pooled_labels(labels[:1], (1, 2, 4)).tolist() == [[[1]]]
