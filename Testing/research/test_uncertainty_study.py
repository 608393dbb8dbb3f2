"""Measures of uncertainty of one case, on maps of known quality."""

from __future__ import annotations

import numpy as np
import pytest
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.models.model import Model
from DiffusionSegmentBackend.training.cross_fitting import temperature_of
from DiffusionSegmentResearch.studies.uncertainty import case_measures
from numpy.typing import NDArray

SIDE = 24


@pytest.fixture(scope="module")
def case() -> Case:
    labels = np.zeros((SIDE,) * 3, np.uint8)
    labels[6:18, 6:18, 6:18] = 6
    image = np.zeros(labels.shape, np.float32)
    grid = model_grid(Volume(image, np.diag([3.0, 3.0, 3.0, 1.0])), spacing=(3.0, 3.0, 3.0))
    return Case("block", image, labels, grid)


def certain(labels: NDArray[np.uint8], confidence: float) -> NDArray[np.float32]:
    rest = (1 - confidence) / 13
    return np.moveaxis(np.where(np.eye(14)[labels] > 0, confidence, rest), -1, 0).astype(np.float32)


def test_a_correct_and_confident_map_has_no_error_and_no_uncertainty(case: Case, model: Model) -> None:
    measures = case_measures(certain(case.labels, 0.999), case, model)
    assert measures.dice[5] == 1
    assert measures.brier < 1e-4
    assert measures.aurc == 0
    assert measures.error_shares == [1.0, 1.0, 1.0]
    assert measures.covered == [True]


def test_uncertainty_where_the_map_is_wrong_is_rewarded(case: Case, model: Model) -> None:
    wrong = case.labels.copy()
    wrong[6:8, 6:18, 6:18] = 0
    confident, uncertain = certain(wrong, 0.95), certain(wrong, 0.95)
    uncertain[:, 6:8, 6:18, 6:18] = 0.4 / 12
    uncertain[0, 6:8, 6:18, 6:18] = 0.31
    uncertain[6, 6:8, 6:18, 6:18] = 0.29
    first, second = (case_measures(p, case, model) for p in (confident, uncertain))
    assert second.dice[5] == first.dice[5] < 1
    assert second.error_shares[2] > 2 * first.error_shares[2]
    assert second.aurc < first.aurc
    assert second.nll < first.nll


def test_an_overconfident_map_gets_a_high_temperature(case: Case) -> None:
    wrong = case.labels.copy()
    wrong[::3] = 0
    assert temperature_of([case], [certain(wrong, 0.99).astype(np.float16)]) > 1.15
    assert temperature_of([case], [certain(case.labels, 0.6).astype(np.float16)]) < 1


def test_a_calibrated_model_keeps_its_temperature_on_partly_labelled_cases() -> None:
    random = np.random.default_rng(0)
    shape = (SIDE,) * 3
    likely = random.dirichlet((8.0, 2.0), size=SIDE**3).T.reshape(2, *shape)
    probabilities = np.zeros((3, *shape), np.float16)
    probabilities[:2] = likely
    probabilities[:, : SIDE // 4] = np.array([0.1, 0.0, 0.9])[:, None, None, None]
    labels = (random.random(shape) > likely[0]).astype(np.uint8)
    labels[: SIDE // 4] = 0
    image = np.zeros(shape, np.float32)
    grid = model_grid(Volume(image, np.diag([3.0, 3.0, 3.0, 1.0])), spacing=(3.0, 3.0, 3.0))
    partial = Case("partial", image, labels, grid, drawn=frozenset({1}))
    assert temperature_of([partial], [probabilities]) == pytest.approx(1.0, abs=0.1)
    complete = Case("complete", image, labels, grid, drawn=frozenset({1, 2}))
    assert temperature_of([complete], [probabilities]) > 1.5
