"""Calibration of reviews: from label maps whose errors are known, on degraded scans, by a command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.datasets.label_errors import delete_organ, softened
from DiffusionSegmentBackend.errors import DiffusionSegmentError
from DiffusionSegmentBackend.models.manifest import ModelDescription, read_description
from DiffusionSegmentBackend.models.model import find_model
from DiffusionSegmentBackend.pipeline.reviewed_error import calibrated_error
from DiffusionSegmentBackend.schema.region_probability import LogisticModel
from DiffusionSegmentBackend.training import reviewed_calibration
from DiffusionSegmentBackend.training.region_calibration import MAX_THRESHOLD, LabelledPrediction
from DiffusionSegmentBackend.training.reviewed_calibration import (
    ERROR,
    EXPERT,
    WEAK,
    ReviewedScan,
    calibrate_reviews,
    fit_reviews,
    fit_voxels,
)
from fixtures.evaluation_data import write_labelled_phantoms
from fixtures.tiny_model import write_tiny_model
from numpy.typing import NDArray

SPACING = (3.0, 3.0, 3.0)
RIGHT_KIDNEY, LEFT_KIDNEY, LIVER = 2, 3, 6


@pytest.fixture(scope="module")
def description() -> ModelDescription:
    return read_description(find_model("abdomen-ct"))


def reviewed_scan(seed: int, classes: int) -> ReviewedScan:
    """A model that finds every organ a voxel too far along x, with blurred edges; a weak segmenter misses an organ."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((32, 40, 40), np.uint8)
    for value, x in ((RIGHT_KIDNEY, 4), (LIVER, 16), (LEFT_KIDNEY, 28)):
        z, y = rng.integers(4, 10, 2)
        truth[z : z + 16, y : y + 18, x : x + 9] = value
    probabilities = softened(np.roll(truth, 1, axis=2), SPACING, classes).astype(np.float32)
    probabilities = 0.95 * probabilities + 0.05 / classes
    prediction = LabelledPrediction(name=f"{seed}", probabilities=probabilities, truth=truth, spacing=SPACING)
    return ReviewedScan(prediction=prediction, weak=delete_organ(truth, SPACING, rng))


@pytest.fixture(scope="module")
def scans(description: ModelDescription) -> list[ReviewedScan]:
    return [reviewed_scan(seed, description.classes) for seed in range(6)]


def expected_ml(scan: ReviewedScan, description: ModelDescription, labels: NDArray[np.uint8]) -> float:
    probabilities = scan.prediction.probabilities
    error = 1 - np.take_along_axis(probabilities, labels[None].astype(np.intp), axis=0)[0]
    own = float((1 - probabilities.max(axis=0)).sum())
    assert description.reviewed_error is not None
    return float(calibrated_error(error, own, description.reviewed_error, spacing=SPACING).sum() * 0.027)


def test_every_kind_of_label_map_counts_as_much(scans: list[ReviewedScan], description: ModelDescription) -> None:
    shares, reviewed = dict.fromkeys((EXPERT, ERROR, WEAK), 0.0), []
    for item in scans[0].label_maps(description, seed=0):
        shares[item.kind] += item.share
        assert bool((item.labels != item.truth).any()) is (item.kind != EXPERT)
        assert 0 <= item.error.min() <= item.error.max() <= 1
        reviewed.append(len({*np.unique(item.labels), *np.unique(item.truth)} - {0}))
    assert list(shares.values()) == pytest.approx([1, 1, 1])
    assert reviewed[::2] == [3] * len(reviewed[::2])
    assert min(reviewed[1::2]) < 3


def test_of_a_few_organs_one_is_wrong(scans: list[ReviewedScan], description: ModelDescription) -> None:
    """What is wrong beyond the reviewed organs is not judged, and the model knows no others."""
    for seed in range(5):
        for item in scans[1].label_maps(description, seed=seed):
            if item.kind == EXPERT or "organs" not in item.name:
                continue
            organs = {*np.unique(item.labels), *np.unique(item.truth)} - {0}
            assert {*np.unique(item.competing)} - {0} <= organs
            assert (item.labels != item.truth).any()


def test_errors_of_the_model_on_new_scans_are_told_from_those_of_the_segmentation(
    scans: list[ReviewedScan], description: ModelDescription
) -> None:
    *seen, new = scans
    error, regions = fit_reviews(seen, description, seed=0)
    assert error.scans == 5
    assert regions is not None
    assert regions.threshold == MAX_THRESHOLD
    fitted = replace(description, reviewed_error=error)
    truth = new.prediction.truth
    missing = np.where(truth == LIVER, 0, truth).astype(np.uint8)
    raw = float((1 - np.take_along_axis(new.prediction.probabilities, truth[None].astype(np.intp), axis=0)).sum())
    wrong_ml = np.count_nonzero(truth == LIVER) * 0.027
    assert expected_ml(new, fitted, truth) < 0.25 * raw * 0.027
    assert expected_ml(new, fitted, missing) == pytest.approx(wrong_ml, rel=0.35)


def test_a_region_is_listed_if_it_more_probably_than_not_holds_a_gross_error(
    scans: list[ReviewedScan], description: ModelDescription, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever share of the gross errors is kept with it."""
    fitted = LogisticModel(intercept=0.0, weights={}, threshold=0.1)
    monkeypatch.setattr(reviewed_calibration, "fit_region_model", lambda examples: fitted)
    assert fit_reviews(scans[:1], description, seed=0)[1] == replace(fitted, threshold=0.5)


def test_the_fit_is_reproducible(scans: list[ReviewedScan], description: ModelDescription) -> None:
    assert fit_voxels(scans[:2], description, seed=3) == fit_voxels(scans[:2], description, seed=3)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five phantoms with the three organs of the tiny model."""
    return write_labelled_phantoms(tmp_path / "data", {str(seed): seed for seed in range(5)})


def tiny_model(folder: Path, *, quality: bool = True) -> Path:
    written = write_tiny_model(folder)
    raw = json.loads((written / "model.json").read_text(encoding="utf-8"))
    raw["quality"] = {"cases": 3, "mean_dice": {"ensemble": 0.5}} if quality else None
    (written / "model.json").write_text(json.dumps(raw), encoding="utf-8")
    return written


def test_the_command_stores_both_models(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_model(tmp_path / "models")
    assert main(["calibrate", "reviews", "--model", str(folder), "--data", str(data)]) == 0
    described = read_description(folder)
    assert described.reviewed_error is not None
    assert described.reviewed_error.scans == 5
    assert described.region_probability is not None
    assert described.region_probability.own is None
    regions = described.region_probability.reviewed
    count = 0 if regions is None else regions.regions
    assert f"calibrated on 5 scans with {count} regions" in capsys.readouterr().out


def test_too_few_cases_or_a_model_that_was_not_measured_change_nothing(data: Path, tmp_path: Path) -> None:
    measured, unmeasured = tiny_model(tmp_path / "a"), tiny_model(tmp_path / "b", quality=False)
    contents = [(folder / "model.json").read_bytes() for folder in (measured, unmeasured)]
    with pytest.raises(DiffusionSegmentError, match="quality was not measured"):
        calibrate_reviews(unmeasured, [data], device="cpu")
    for name in ("3", "4"):
        (data / "images" / f"{name}.nii.gz").unlink()
        (data / "labels" / f"{name}.nii.gz").unlink()
    with pytest.raises(DiffusionSegmentError, match="3 cases have all organs drawn"):
        calibrate_reviews(measured, [data], device="cpu")
    assert [(folder / "model.json").read_bytes() for folder in (measured, unmeasured)] == contents
