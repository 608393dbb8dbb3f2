"""Errors of a segmenter for the training of the audit network: from degraded images, beside the truth in a patch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.datasets.patch_sampler import TrainingSet
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.models.model import load_model
from DiffusionSegmentBackend.training.session import add_coordinates
from DiffusionSegmentResearch.audit import training
from DiffusionSegmentResearch.audit.segmenter_errors import (
    degraded,
    degraded_prediction,
    separated,
    with_prediction,
)
from DiffusionSegmentResearch.audit.training import AuditPatches
from fixtures.segmenter_data import WINDOW, small_volume
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


def test_truth_and_prediction_share_a_byte_and_are_separated_again() -> None:
    volume = small_volume()
    z, y, x = volume.labels.shape
    predicted = np.random.default_rng(0).integers(0, 14, (z - 3, y, x - 1)).astype(np.uint8)
    truth, found = separated(with_prediction(volume, predicted).labels)
    np.testing.assert_array_equal(truth, volume.labels.numpy())
    np.testing.assert_array_equal(found[: z - 3, :, : x - 1], predicted)
    assert not found[z - 3 :].any()
    assert not separated(volume.labels)[1].any()


def test_half_of_the_patches_have_the_errors_of_the_segmenter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "AUDIT_PATCH", (16, 32, 32))
    monkeypatch.setattr(training, "with_errors", lambda scene, random: scene.mask)
    volume = small_volume()
    # The segmenter finds the organs two voxels further along x; the truth itself has no error.
    moved = np.roll(volume.labels.numpy(), 2, axis=2)
    patches = AuditPatches([TrainingSet([with_prediction(volume, moved)])], window=WINDOW, seed=0)
    wrong = [bool(patches.patch(n).wrong.any()) for n in range(40)]
    assert 10 <= sum(wrong) <= 30
    plain = AuditPatches([TrainingSet([volume])], window=WINDOW, seed=0)
    assert not any(plain.patch(n).wrong.any() for n in range(5))


def test_the_pre_segmenter_of_a_model_is_applied_to_the_degraded_image(tmp_path: Path) -> None:
    model = load_model(str(write_tiny_model(tmp_path)), "cpu", precision="float32")
    image = np.random.default_rng(0).uniform(-0.5, 0.5, (10, 16, 20)).astype(np.float32)
    grid = model_grid(Volume(image, np.diag([12.0, 12.0, 12.0, 1.0])), spacing=model.description.spacing_mm)
    case = Case("case", image, np.zeros(image.shape, np.uint8), grid)
    add_coordinates([case], model.bodypart)
    found = degraded_prediction(case, model, np.random.default_rng(1))
    assert found.shape == image.shape
    assert found.dtype == np.uint8
    assert found.max() < model.description.classes
    np.testing.assert_array_equal(found, degraded_prediction(case, model, np.random.default_rng(1)))
    brighter = replace(case, image=np.clip(image + 0.4, -1, 1))
    assert (found != degraded_prediction(brighter, model, np.random.default_rng(1))).any()
    assert torch.is_inference_mode_enabled() is False
