"""Parts of one-command training: limits from held-out cases, the new model.json, and the trial of pseudo-labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from DiffusionSegmentBackend.cli import train as training_cli
from DiffusionSegmentBackend.models.manifest import ModelDescription, read_description
from DiffusionSegmentBackend.models.model import find_model
from DiffusionSegmentBackend.pipeline.checks import OrganMeasures
from DiffusionSegmentBackend.training.new_model import new_description
from DiffusionSegmentBackend.training.whole_model.anatomy_limits import anatomy_limits
from DiffusionSegmentBackend.training.whole_model.stages import STAGE_FUNCTIONS
from DiffusionSegmentBackend.training.whole_model.student import Trial
from DiffusionSegmentBackend.training.whole_model.time_plan import (
    STAGES,
)


def measures(ml: float, confidence: float, layout: float | None) -> OrganMeasures:
    return OrganMeasures(ml, confidence, layout)


def test_limits_are_computed_from_the_held_out_cases() -> None:
    result = anatomy_limits([measures(200.0, 0.91, 10.2), measures(500.0, 0.876, 14.9)])
    assert result == {
        "min_organ_ml": 20.0,
        "usual_confidence": 0.87,
        "min_confidence": 0.67,
        "usual_layout_mm": 15.0,
        "max_layout_mm": 23.0,
    }
    assert set(anatomy_limits([measures(0.0, 0.1, None)])) == {"min_organ_ml", "usual_confidence", "min_confidence"}
    assert anatomy_limits([measures(0.0, 0.1, None)])["min_confidence"] == 0


class TestNewDescription:
    @pytest.fixture(scope="class")
    @staticmethod
    def base() -> ModelDescription:
        return read_description(find_model("abdomen-ct"))

    def test_only_labels_and_grid_of_the_base_are_kept(self, base: ModelDescription) -> None:
        raw = new_description(base, folder_name="my-abdomen", own=False)
        assert (raw["name"], raw["version"], raw["licence"]) == ("my-abdomen", "1", "not stated")
        assert (raw["quality"], raw["networks"], raw["training_data"]) == ({}, {}, "")
        assert raw["anatomy"] == {"min_organ_ml": 0.0, "min_confidence": 0.0, "usual_confidence": 0.0}
        assert (raw["labels"], raw["spacing_mm"]) == (base.raw["labels"], base.raw["spacing_mm"])
        assert new_description(base, folder_name="abdomen-ct", own=False)["name"] == "abdomen-ct"

    def test_an_own_manifest_keeps_name_version_and_licence(self, base: ModelDescription) -> None:
        own = replace(base, raw={**base.raw, "name": "own", "version": "3", "licence": "MIT"})
        raw = new_description(own, folder_name="run-7", own=True)
        assert (raw["name"], raw["version"], raw["licence"]) == ("own", "3", "MIT")
        assert new_description(own, folder_name="run-7", own=True, licence="CC0")["licence"] == "CC0"

    def test_a_frame_without_the_positions_of_all_labels_is_removed(self, base: ModelDescription) -> None:
        labels = [dict(label) for label in base.raw["labels"]]
        labels[3].pop("body_mm")
        raw = new_description(replace(base, raw={**base.raw, "labels": labels}), folder_name="x", own=True)
        assert not any("body_mm" in label for label in raw["labels"])


def test_the_command_line_has_the_stages_of_training() -> None:
    assert training_cli._STAGES == STAGES == tuple(STAGE_FUNCTIONS)


def trial(with_labels: list[float], without: list[float]) -> Trial:
    names = tuple(f"case_{n}" for n in range(len(without)))
    return Trial(names, np.array(with_labels), np.array(without))


def test_pseudo_labels_must_improve_the_mean_and_most_cases() -> None:
    assert trial([0.74, 0.72, 0.71], [0.73, 0.71, 0.70]).helped
    assert not trial([0.732, 0.712, 0.702], [0.73, 0.71, 0.70]).helped
    assert not trial([0.80, 0.70, 0.69], [0.73, 0.71, 0.70]).helped
