"""The probability that labels of a reviewed segmentation are wrong: calibrated, in the regions and in the report."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.models.manifest import ModelDescription, read_description
from DiffusionSegmentBackend.models.model import find_model, load_model
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.review import error_map, expected_errors
from DiffusionSegmentBackend.pipeline.reviewed import mix_with_given
from DiffusionSegmentBackend.pipeline.reviewed_error import calibrated_error, reviewed_error_features
from DiffusionSegmentBackend.pipeline.segment import build_segmentation, open_session
from DiffusionSegmentBackend.pipeline.session import GIVEN_WEIGHT
from DiffusionSegmentBackend.schema.reviewed_error import REVIEWED_ERROR_FEATURES, ReviewedErrorModel
from fixtures.correction_cases import SPLEEN
from fixtures.tiny_model import coarse_phantom, write_tiny_model
from numpy.typing import NDArray

SPACING = (3.0, 3.0, 3.0)
EVERY_FEATURE = ReviewedErrorModel(intercept=0.0, weights=dict.fromkeys(REVIEWED_ERROR_FEATURES, 0.5))


def disagreement(thickness: int) -> NDArray[np.float32]:
    """A plate of voxels that the model calls wrong with 95 %, `thickness` voxels thick."""
    error = np.full((40, 40, 40), 0.01, np.float32)
    error[10 : 10 + thickness, 5:35, 5:35] = 0.95
    return error


def test_a_thick_disagreement_is_a_more_probable_error_than_a_thin_one() -> None:
    thin, thick = (calibrated_error(disagreement(n), 500.0, EVERY_FEATURE, spacing=SPACING) for n in (1, 8))
    assert thick[14, 20, 20] > thin[10, 20, 20] + 0.1
    assert thin.dtype == thick.dtype == np.float32


def test_a_scan_on_which_the_model_doubts_itself_as_much_has_less_probable_errors() -> None:
    sure, unsure = (calibrated_error(disagreement(3), own, EVERY_FEATURE, spacing=SPACING) for own in (500.0, 3000.0))
    assert (sure > unsure).all()
    features = reviewed_error_features(disagreement(3), 3000.0, spacing=SPACING)
    assert features["disagreement"] == pytest.approx(math.log(disagreement(3).sum() / 3000.0), rel=1e-4)


def test_a_missing_organ_does_not_make_the_rest_of_the_scan_wrong() -> None:
    """However large it is, beside a model that hardly doubts itself."""
    steep = ReviewedErrorModel(intercept=-4.0, weights={"error": 1.0, "disagreement": 4.0})
    error = np.full((40, 40, 40), 0.001, np.float32)
    error[5:35, 5:35, 5:35] = 0.99
    assert reviewed_error_features(error, 1.0, spacing=SPACING)["disagreement"] == 1.0
    found = calibrated_error(error, 1.0, steep, spacing=SPACING)
    assert found[20, 20, 20] > 0.9
    assert found[0, 0, 0] < 0.01


def test_voxels_that_are_not_judged_stay_certain() -> None:
    error = disagreement(3)
    error[:5] = 0
    sure = replace(EVERY_FEATURE, intercept=20.0)
    assert not calibrated_error(error, 500.0, sure, spacing=SPACING)[:5].any()


def test_lengths_are_in_mm_on_every_grid() -> None:
    """The same plate on voxels half as thick along z."""
    coarse = reviewed_error_features(disagreement(4), 500.0, spacing=SPACING)
    fine = reviewed_error_features(np.repeat(disagreement(4), 2, axis=0), 1000.0, spacing=(1.5, 3.0, 3.0))
    for name in ("error_3mm", "error_6mm", "error_12mm"):
        assert fine[name][24, 20, 20] == pytest.approx(coarse[name][12, 20, 20], abs=0.25)


def reviewed_probabilities() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Those of a model of 14 classes, and their ensemble with random labels that are given."""
    torch.manual_seed(0)
    own = torch.rand(14, 6, 8, 10).mul(6).softmax(dim=0)
    given = torch.randint(0, 14, (6, 8, 10)).byte()
    mixed = mix_with_given(own.clone(), given, torch.ones((6, 8, 10), dtype=torch.bool))
    return own.numpy(), mixed.numpy()


def test_the_doubt_of_the_model_itself_is_recovered_from_the_ensemble() -> None:
    own, mixed = reviewed_probabilities()
    expected = float((1 - own.max(axis=0)).sum())
    assert error_map(own).own_error == pytest.approx(expected, rel=1e-5)
    assert error_map(mixed, given_weight=GIVEN_WEIGHT).own_error == pytest.approx(expected, rel=1e-4)


@pytest.fixture(scope="module")
def description() -> ModelDescription:
    return replace(read_description(find_model("abdomen-ct")), reviewed_error=EVERY_FEATURE)


def test_only_reviewed_segmentations_are_calibrated(description: ModelDescription) -> None:
    own, mixed = reviewed_probabilities()
    grid = model_grid(Volume(np.zeros((6, 8, 10), np.int16), np.diag([3.0, 3.0, 3.0, 1.0])), spacing=SPACING)
    np.testing.assert_array_equal(expected_errors(own, grid, description).probability, error_map(own).probability)
    raw = error_map(mixed, given_weight=GIVEN_WEIGHT)
    reviewed = expected_errors(mixed, grid, description, given_weight=GIVEN_WEIGHT)
    expected = calibrated_error(raw.probability, raw.own_error, EVERY_FEATURE, spacing=SPACING)
    np.testing.assert_array_equal(reviewed.probability, expected)
    assert reviewed.expected_wrong_ml(0.027) == pytest.approx(float(expected.sum()) * 0.027, rel=1e-5)
    without = replace(description, reviewed_error=None)
    plain = expected_errors(mixed, grid, without, given_weight=GIVEN_WEIGHT)
    np.testing.assert_array_equal(plain.probability, raw.probability)


def test_the_report_of_a_review_states_calibrated_errors(tmp_path: Path) -> None:
    model, scan = load_model(str(write_tiny_model(tmp_path)), "cpu"), coarse_phantom()
    own = build_segmentation(open_session(scan, model, SegmentOptions(force=True)), model, bodypart=False).labels
    wrong = np.where(own == SPLEEN, 0, own).astype(np.uint8)
    session = open_session(scan, model, SegmentOptions(force=True, reviewed=wrong))
    plain = build_segmentation(session, model, bodypart=False)
    never = ReviewedErrorModel(intercept=-20.0, weights={})
    described = replace(model, description=replace(model.description, reviewed_error=never))
    silent = build_segmentation(session, described, bodypart=False)
    assert plain.report.expected_wrong_ml > 1
    assert plain.report.review
    assert silent.report.expected_wrong_ml == 0
    assert not silent.report.review
    assert not silent.regions.any()
    np.testing.assert_array_equal(silent.labels, plain.labels)
