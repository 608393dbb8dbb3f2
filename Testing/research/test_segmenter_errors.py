"""Errors of a segmenter for the training of the audit network, beside the truth in a patch."""

from __future__ import annotations

import numpy as np
import pytest
from DiffusionSegmentBackend.datasets.patch_sampler import TrainingSet
from DiffusionSegmentResearch.audit import training
from DiffusionSegmentResearch.audit.segmenter_errors import (
    separated,
    with_prediction,
)
from DiffusionSegmentResearch.audit.training import AuditPatches
from fixtures.segmenter_data import WINDOW, small_volume


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
