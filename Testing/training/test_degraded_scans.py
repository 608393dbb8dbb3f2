"""Errors of a pre-segmenter on degraded images of the scans that it was trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.models.model import Model, load_model
from DiffusionSegmentBackend.training import degraded_scans
from DiffusionSegmentBackend.training.degraded_scans import (
    degraded,
    degraded_prediction,
    prediction_with_dice,
    presegmented,
)
from DiffusionSegmentBackend.training.session import add_coordinates
from fixtures.tiny_model import write_tiny_model


def test_a_degraded_image_keeps_its_range_and_its_air() -> None:
    image = np.full((12, 16, 16), -1.0, np.float32)
    image[2:10, 4:12, 4:12] = 0.3
    for seed in range(5):
        poor = degraded(image, np.random.default_rng(seed))
        assert poor.dtype == np.float32
        assert abs(poor).max() <= 1
        assert (poor[image < -0.99] == -1).all()
        assert poor[image > 0].std() > 0.02
        np.testing.assert_array_equal(poor, degraded(image, np.random.default_rng(seed)))


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.5])
def test_a_strength_moves_an_image_towards_the_degraded_one_and_beyond(strength: float) -> None:
    image = np.random.default_rng(0).uniform(-0.4, 0.4, (8, 10, 12)).astype(np.float32)
    poor = degraded(image, np.random.default_rng(1))
    found = degraded(image, np.random.default_rng(1), strength=strength)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.clip(image + strength * (poor - image), -1, 1), atol=1e-5)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return load_model(str(write_tiny_model(tmp_path)), "cpu", precision="float32")


@pytest.fixture
def case(model: Model) -> Case:
    image = np.random.default_rng(0).uniform(-0.5, 0.5, (10, 16, 20)).astype(np.float32)
    grid = model_grid(Volume(image, np.diag([12.0, 12.0, 12.0, 1.0])), spacing=model.description.spacing_mm)
    case = Case("case", image, np.zeros(image.shape, np.uint8), grid)
    add_coordinates([case], model.bodypart)
    return case


def test_the_pre_segmenter_of_a_model_is_applied_to_the_degraded_image(model: Model, case: Case) -> None:
    found = degraded_prediction(case, model, np.random.default_rng(1))
    assert found.shape == case.image.shape
    assert found.dtype == np.uint8
    assert found.max() < model.description.classes
    np.testing.assert_array_equal(found, degraded_prediction(case, model, np.random.default_rng(1)))
    assert (found != presegmented(case, model).argmax(dim=0).numpy()).any()
    brighter = replace(case, image=np.clip(case.image + 0.4, -1, 1))
    assert (found != degraded_prediction(brighter, model, np.random.default_rng(1))).any()
    assert torch.is_inference_mode_enabled() is False


@pytest.mark.parametrize("dice", [0.9, 0.6, 0.3])
def test_an_image_is_degraded_until_the_dice_is_that_of_new_scans(
    model: Model, case: Case, dice: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segmenter that loses slices of the organ in proportion to the strength of the degradation."""
    labels = np.ones(case.labels.shape, np.uint8)
    labels[:2] = 0
    case = replace(case, labels=labels)
    monkeypatch.setattr(degraded_scans, "degraded", lambda image, random, strength: np.full_like(image, strength))

    def find(shown: Case, _: Model) -> torch.Tensor:
        lost = torch.rand(labels.shape, generator=torch.Generator().manual_seed(0)) < float(shown.image.mean()) / 1.5
        found = torch.from_numpy(labels).long() * ~lost
        return torch.nn.functional.one_hot(found, model.description.classes).movedim(-1, 0).float()

    monkeypatch.setattr(degraded_scans, "presegmented", find)
    found = prediction_with_dice(case, model, dice, seed=0)[1].numpy() > 0.5
    reached = 2 * np.count_nonzero(found & (labels == 1)) / (np.count_nonzero(found) + np.count_nonzero(labels))
    assert reached == pytest.approx(dice, abs=0.1)
