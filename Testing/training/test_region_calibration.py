"""The probability of regions: fitted to known frequencies, out of fold, on own and on reviewed label maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from DiffusionSegmentBackend.models.manifest import ModelDescription, read_description
from DiffusionSegmentBackend.models.model import find_model
from DiffusionSegmentBackend.schema.region_probability import REGION_FEATURES
from DiffusionSegmentBackend.training.region_calibration import (
    LabelledPrediction,
    RegionExample,
    calibrate_regions,
    fit_region_model,
    out_of_fold_probabilities,
    own_examples,
    reviewed_examples,
)

LIVER, RIGHT_KIDNEY, LEFT_KIDNEY = 6, 2, 3
SCANS = 8


@pytest.fixture(scope="module")
def description() -> ModelDescription:
    return read_description(find_model("abdomen-ct"))


@pytest.fixture(scope="module")
def examples() -> list[RegionExample]:
    """Regions with P = 1 / (1 + exp(1 - 2 * first feature)) of a gross error."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2000, len(REGION_FEATURES)))
    gross = rng.random(2000) < 1 / (1 + np.exp(1 - 2 * features[:, 0]))
    return [
        RegionExample(scan=f"scan {n % SCANS}", label_map="own", rank=0, features=tuple(x), gross=bool(y))
        for n, (x, y) in enumerate(zip(features.tolist(), gross, strict=True))
    ]


def test_the_model_has_the_frequencies_of_its_examples(examples: list[RegionExample]) -> None:
    model = fit_region_model(examples)
    assert model is not None
    first, *others = (model.weights[name] for name in REGION_FEATURES)
    assert model.intercept == pytest.approx(-1, abs=0.2)
    assert first == pytest.approx(2, abs=0.3)
    assert others == pytest.approx([0] * len(others), abs=0.2)
    assert (model.scans, model.regions) == (SCANS, len(examples))
    probabilities = out_of_fold_probabilities(examples)
    gross = np.array([example.gross for example in examples])
    for chosen in np.array_split(np.argsort(probabilities), 5):
        assert probabilities[chosen].mean() == pytest.approx(gross[chosen].mean(), abs=0.06)


def test_the_threshold_keeps_95_percent_of_the_regions_with_a_gross_error(examples: list[RegionExample]) -> None:
    model = fit_region_model(examples)
    assert model is not None
    probabilities = out_of_fold_probabilities(examples)
    kept = [p >= model.threshold for p, example in zip(probabilities, examples, strict=True) if example.gross]
    assert np.mean(kept) == pytest.approx(0.95, abs=0.005)


def test_a_region_that_probably_holds_an_error_is_never_below_the_threshold() -> None:
    """Nine of ten regions hold one, whatever their features."""
    rng = np.random.default_rng(0)
    examples = [
        RegionExample(scan=f"{n % 5}", label_map="own", rank=0, features=tuple(x), gross=n % 10 != 0)
        for n, x in enumerate(rng.normal(size=(200, len(REGION_FEATURES))).tolist())
    ]
    model = fit_region_model(examples)
    assert model is not None
    assert out_of_fold_probabilities(examples).min() > 0.5
    assert model.threshold == 0.5


def test_a_scan_does_not_judge_itself(examples: list[RegionExample]) -> None:
    """All answers of one scan are inverted: its own probabilities stay those of the others."""
    inverted = [
        RegionExample(
            scan=example.scan,
            label_map="own",
            rank=0,
            features=example.features,
            gross=example.gross != (example.scan == "scan 0"),
        )
        for example in examples
    ]
    of_first = np.array([example.scan == "scan 0" for example in examples])
    before, after = out_of_fold_probabilities(examples), out_of_fold_probabilities(inverted)
    np.testing.assert_array_equal(before[of_first], after[of_first])
    assert np.abs(before - after)[~of_first].max() > 0.01


def test_few_scans_and_regions_of_one_kind_give_no_model(examples: list[RegionExample]) -> None:
    assert fit_region_model([example for example in examples if example.scan < "scan 4"]) is None
    assert fit_region_model([example for example in examples if example.gross]) is None
    assert fit_region_model([]) is None
    assert calibrate_regions([], []) is None
    calibrated = calibrate_regions(examples, [])
    assert calibrated is not None
    assert calibrated.reviewed is None


@pytest.fixture
def prediction() -> LabelledPrediction:
    """A network that is certain of the truth, but for 6 x 6 x 6 voxels of the liver and 2 x 8 x 8 elsewhere."""
    truth = np.zeros((40, 40, 40), np.uint8)
    truth[20:38, 8:32, 4:22] = LIVER
    truth[4:16, 30:40, 6:14] = RIGHT_KIDNEY
    truth[4:16, 30:40, 26:34] = LEFT_KIDNEY
    probabilities = np.stack([truth == value for value in range(14)]).astype(np.float32)
    wrong, right = np.s_[22:28, 10:16, 6:12], np.s_[6:8, 30:38, 26:34]
    for box, p in ((wrong, 0.6), (right, 0.4)):
        probabilities[(slice(None), *box)] *= 1 - p
        probabilities[(0, *box)] += p
    return LabelledPrediction(name="case", probabilities=probabilities, truth=truth, spacing=(3.0, 3.0, 3.0))


def test_own_regions_hold_the_gross_errors_of_the_prediction(prediction: LabelledPrediction) -> None:
    first, second = own_examples(prediction)
    assert (first.gross, second.gross) == (True, False)
    values = dict(zip(REGION_FEATURES, first.features, strict=True))
    expected = 216 * 0.4 * 0.027
    assert values["log_expected_wrong"] == pytest.approx(math.log(expected), abs=1e-4)
    assert values["mean_error"] == pytest.approx(0.4, abs=1e-4)
    liver = (18 * 24 * 18 - 216) * 0.027
    assert values["log_organ_share"] == pytest.approx(math.log(expected / liver), abs=1e-4)


def test_reviewed_regions_are_of_the_expert_and_of_simulated_errors(
    prediction: LabelledPrediction, description: ModelDescription
) -> None:
    examples = reviewed_examples(prediction, description, seed=1)
    label_maps = {example.label_map for example in examples}
    assert len(label_maps) == 3
    of_expert = [example for example in examples if example.label_map == "expert"]
    assert of_expert
    assert not any(example.gross for example in of_expert)
    for name in label_maps - {"expert"}:
        assert any(example.gross for example in examples if example.label_map == name), name
    assert {e.label_map for seed in range(6) for e in reviewed_examples(prediction, description, seed=seed)} == {
        "expert",
        "deleted",
        "cut off",
        "leaked",
        "swapped",
    }
