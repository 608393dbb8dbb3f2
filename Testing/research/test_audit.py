"""The audit network: implanted errors, its input and training, and its use on a segmentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.datasets.patch_sampler import TrainingSet
from DiffusionSegmentBackend.imaging.signed_distance import signed_distance
from DiffusionSegmentBackend.training.loop import Budget, RunOptions
from DiffusionSegmentResearch.audit import training
from DiffusionSegmentResearch.audit.inference import audit_organ
from DiffusionSegmentResearch.audit.mask_errors import (
    ERRORS,
    ErrorScene,
    bite,
    cut,
    leak,
    lump,
    neighbour_taken,
    stray_piece,
    with_errors,
)
from DiffusionSegmentResearch.audit.network import AuditNetwork, audit_input
from DiffusionSegmentResearch.audit.training import AuditPatches, audit_loss, remapped, train_audit
from fixtures.segmenter_data import RIGHT, WINDOW, small_volume

SPACING = (3.0, 3.0, 3.0)


@pytest.fixture
def scene() -> ErrorScene:
    """An organ between a neighbour and tissue of its own intensity."""
    labels = np.zeros((32, 32, 32), np.uint8)
    labels[10:22, 10:22, 8:20] = 1
    labels[10:22, 10:22, 21:28] = 2
    image = np.zeros(labels.shape, np.float32)
    image[6:26, 4:24, 6:20] = 0.5
    return ErrorScene(mask=labels == 1, image=image, labels=labels, spacing=SPACING)


@pytest.mark.parametrize(
    ("error", "sign"), [(bite, -1), (cut, -1), (lump, 1), (leak, 1), (neighbour_taken, 1), (stray_piece, 1)]
)
def test_an_error_adds_or_removes_voxels(scene: ErrorScene, error: Callable[..., np.ndarray], sign: int) -> None:
    distance = signed_distance(scene.mask, SPACING)
    for seed in range(5):
        changed = error(distance, scene, np.random.default_rng(seed)) > 0
        assert changed.any()
        assert not ((scene.mask & ~changed) if sign > 0 else (changed & ~scene.mask)).any()
    assert np.count_nonzero(changed != scene.mask) > 0


def test_what_a_neighbour_loses_belonged_to_it(scene: ErrorScene) -> None:
    distance = signed_distance(scene.mask, SPACING)
    added = (neighbour_taken(distance, scene, np.random.default_rng(1)) > 0) & ~scene.mask
    assert (scene.labels[added] == 2).all()


def test_about_one_mask_in_seven_keeps_its_shape(scene: ErrorScene) -> None:
    changed = [
        np.count_nonzero(with_errors(scene, np.random.default_rng(seed)) != scene.mask) / np.count_nonzero(scene.mask)
        for seed in range(60)
    ]
    assert 2 <= sum(share < 0.08 for share in changed) <= 25
    assert len(ERRORS) == 11


def test_the_input_holds_image_mask_distance_and_others() -> None:
    distance = torch.tensor([[[-60.0, -15.0, 3.0]]])
    inputs = audit_input(torch.full((1, 1, 3), 0.25), distance, torch.tensor([[[True, False, False]]]))
    torch.testing.assert_close(inputs[:, 0, 0], torch.tensor([[0.25] * 3, [0, 0, 1.0], [-1.0, -0.5, 0.1], [1.0, 0, 0]]))


def test_grey_values_are_remapped_monotonically_within_the_window() -> None:
    values = np.linspace(-1, 1, 50, dtype=np.float32)
    falling = 0
    for seed in range(40):
        curve = remapped(values, np.random.default_rng(seed))
        steps = np.diff(curve)
        assert (steps >= 0).all() or (steps <= 0).all()
        assert abs(curve).max() <= 1 + 1e-6
        falling += bool(curve[0] > curve[-1])
    assert 0 < falling < 25


@pytest.fixture
def patches(monkeypatch: pytest.MonkeyPatch) -> AuditPatches:
    monkeypatch.setattr(training, "AUDIT_PATCH", (16, 32, 32))
    return AuditPatches([TrainingSet([small_volume()])], window=WINDOW, seed=0, left_out=frozenset({RIGHT}))


def test_a_patch_is_reproducible_and_organs_left_out_are_never_audited(patches: AuditPatches) -> None:
    first, again = patches.patch(3), patches.patch(3)
    torch.testing.assert_close(first.inputs, again.inputs, rtol=0, atol=0)
    assert first.inputs.shape == (1, 4, 16, 32, 32)
    assert set(first.wrong.unique().tolist()) <= {0.0, 1.0}


def test_voxels_that_do_not_count_do_not_change_the_loss(patches: AuditPatches) -> None:
    patch = next(p for p in map(patches.patch, range(20)) if 0 < p.counts.mean() < 1)
    logits = torch.randn(patch.wrong.shape, generator=torch.Generator().manual_seed(0))
    other = torch.where(patch.counts > 0, logits, logits + 9)
    for name, value in audit_loss(logits, patch).items():
        torch.testing.assert_close(value, audit_loss(other, patch)[name])


def test_training_lowers_the_loss_and_resumes(patches: AuditPatches, tmp_path: Path) -> None:
    def run(steps: int) -> AuditNetwork:
        options = RunOptions(budget=Budget(steps=steps, learning_rate=1e-2), folder=tmp_path, resume=True)
        torch.manual_seed(0)
        return train_audit(AuditNetwork((8, 8)), patches, run=options)

    untrained = AuditNetwork((8, 8)).eval()
    run(20)
    trained = run(50)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 50
    held_out = [patches.patch(n) for n in range(900, 908)]
    with torch.inference_mode():
        losses = [sum(float(audit_loss(n(p.inputs), p)["entropy"]) for p in held_out) for n in (untrained, trained)]
    assert losses[1] < losses[0]


def test_an_organ_is_audited_in_its_box_with_a_margin() -> None:
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[18:22, 3:9, 18:22] = 5
    image = np.zeros(labels.shape, np.float32)
    network = AuditNetwork((8, 8)).eval()
    audited = audit_organ(network, image, labels, 5, spacing=SPACING)
    assert audited is not None
    assert audited.box == (slice(8, 32), slice(0, 19), slice(8, 32))
    assert audited.probability.shape == audited.distance_mm.shape == (24, 19, 24)
    assert np.array_equal(audited.distance_mm > 0, labels[audited.box] == 5)
    assert audit_organ(network, image, labels, 6, spacing=SPACING) is None
