"""Probability of regions and margins of organs in model.json and report.json."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from DiffusionSegmentBackend.models.folders import bundled_models_folder
from DiffusionSegmentBackend.schema import dataclass_json
from DiffusionSegmentBackend.schema.dataclass_json import SchemaError
from DiffusionSegmentBackend.schema.model_manifest import ModelManifest
from DiffusionSegmentBackend.schema.region_probability import LogisticModel

MARGIN = {"mm": 4.2, "contained": 0.99, "coverage": 0.9, "scans": 22, "missed": 1}
MODEL = {"intercept": -1.0, "weights": {"mean_error": 2.0}, "threshold": 0.1, "scans": 22, "regions": 400}


@pytest.fixture
def raw() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((bundled_models_folder() / "abdomen-ct" / "model.json").read_text("utf-8"))
    return content


def test_a_model_without_calibration_has_neither(raw: dict[str, Any]) -> None:
    manifest = ModelManifest.from_json({**raw, "region_probability": None})
    assert manifest.region_probability is None


def test_both_are_read_from_a_manifest(raw: dict[str, Any]) -> None:
    raw["labels"][0]["margin"] = MARGIN
    manifest = ModelManifest.from_json({**raw, "region_probability": {"own": MODEL}})
    assert dataclass_json.to_json(manifest.labels[0].margin) == MARGIN
    assert manifest.region_probability is not None
    assert dataclass_json.to_json(manifest.region_probability.own) == MODEL
    assert manifest.region_probability.reviewed is None


@pytest.mark.parametrize(
    "wrong", [{"weights": {"size": 1.0}}, {"threshold": 1.5}, {"intercept": None}], ids=["feature", "threshold", "type"]
)
def test_an_invalid_calibration_is_refused(raw: dict[str, Any], wrong: dict[str, Any]) -> None:
    with pytest.raises(SchemaError):
        ModelManifest.from_json({**raw, "region_probability": {"own": {**MODEL, **wrong}}})


def test_an_invalid_margin_is_refused(raw: dict[str, Any]) -> None:
    raw["labels"][0]["margin"] = {**MARGIN, "coverage": 90.0}
    with pytest.raises(SchemaError):
        ModelManifest.from_json(raw)


def test_the_probability_is_the_logistic_function_and_never_overflows() -> None:
    model = LogisticModel(intercept=-1.0, weights={"mean_error": 2.0})
    features = {"log_expected_wrong": 5.0, "mean_error": 0.9, "log_organ_share": 0.0}
    assert model.probability(features) == pytest.approx(1 / (1 + math.exp(-0.8)))
    assert model.probability({**features, "mean_error": -1e9}) == pytest.approx(0)
