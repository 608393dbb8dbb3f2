"""Pretraining without labels: diffusion, the other objectives, and the student without noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.networks.backbone import Backbone, descriptors_at
from DiffusionSegmentBackend.phantom.phantom import make_phantom
from DiffusionSegmentBackend.pipeline.prepare import windowed
from DiffusionSegmentBackend.training.backbone import OBJECTIVES, body_as_label, train_backbone
from DiffusionSegmentBackend.training.contrastive import crop_pairs, info_nce
from DiffusionSegmentBackend.training.loop import Budget
from DiffusionSegmentBackend.training.objectives import DiffusionObjective, RestorativeObjective, StudentObjective

CHANNELS = (8, 8, 16)


@pytest.fixture(scope="module")
def case() -> Case:
    phantom = make_phantom(seed=0, spacing_mm=(4.0, 4.0, 4.0))
    grid = model_grid(Volume(phantom.image, phantom.index_to_lps), spacing=(4.0, 4.0, 4.0))
    image = windowed(grid.to_grid(phantom.image), (-125.0, 275.0))
    coordinates = np.zeros((3, *image.shape), np.float16)
    return Case("phantom", image, grid.labels_to_grid(phantom.labels), grid, coordinates=coordinates)


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(1, 1, 16, 16, 16, generator=generator).clamp(-1, 1)
    return image, torch.randn(1, 3, 16, 16, 16, generator=generator), generator


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains_a_backbone_and_ignores_labels(objective: str, case: Case, tmp_path: Path) -> None:
    results = []
    for n, labels in enumerate((case.labels, np.zeros_like(case.labels))):
        torch.manual_seed(0)
        unlabelled = Case(case.name, case.image, labels, case.grid, coordinates=case.coordinates)
        trained = train_backbone(
            [unlabelled],
            budget=Budget(steps=2, learning_rate=1e-3),
            folder=tmp_path / f"{objective}{n}",
            patch=16,
            objective=objective,
            start=Backbone(CHANNELS),
        )
        results.append(trained.head.weight.clone())
    assert isinstance(trained, Backbone)
    assert torch.equal(results[0], results[1])


def test_an_unknown_objective_and_a_student_without_teacher_are_refused(case: Case, tmp_path: Path) -> None:
    for objective in ("guesswork", "student"):
        with pytest.raises(DiffusionSegmentError) as caught:
            train_backbone([case], budget=Budget(steps=1), folder=tmp_path, objective=objective)
        assert caught.value.code is ErrorCode.OPTION


def test_patches_are_sampled_inside_the_body() -> None:
    image = np.full((4, 4, 4), -1.0, np.float32)
    image[1, 2, 3] = 0.0
    grid = model_grid(Volume(image, np.eye(4)), spacing=(1.0, 1.0, 1.0))
    labels = body_as_label(Case("one", image, np.full((4, 4, 4), 7, np.uint8), grid)).labels
    assert labels.sum() == 1
    assert labels[1, 2, 3] == 1


def test_the_backbone_depends_on_coordinates_only_if_they_are_enabled() -> None:
    image, coordinates, _ = batch()
    for allowed in (True, False):
        torch.manual_seed(0)
        backbone = Backbone(CHANNELS, use_coordinates=allowed).eval()
        first, second = (backbone.features(image, c)[0] for c in (coordinates, 2 * coordinates))
        assert torch.equal(first, second) is not allowed


def test_diffusion_and_restoration_losses_decrease_on_one_patch() -> None:
    for objective in (DiffusionObjective, RestorativeObjective):
        torch.manual_seed(0)
        network = objective(Backbone(CHANNELS))
        optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
        history = []
        for step in range(25):
            image, coordinates, _ = batch()
            losses = network(image, coordinates, torch.Generator().manual_seed(step % 3))
            loss = torch.stack(list(losses.values())).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(float(loss.detach()))
        assert np.mean(history[-3:]) < 0.8 * np.mean(history[:3])


def test_the_input_of_restoration_is_a_corrupted_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Backbone(CHANNELS)
    image, coordinates, generator = batch()
    inputs = []
    monkeypatch.setattr(backbone, "forward", lambda x, *_: inputs.append(x.clone()) or torch.zeros_like(x))
    before = image.clone()
    RestorativeObjective(backbone)(image, coordinates, generator)
    assert torch.equal(image, before)
    assert float((inputs[0] - image).abs().mean()) > 0.1


def test_the_teacher_gets_no_gradient() -> None:
    torch.manual_seed(0)
    teacher = Backbone(CHANNELS)
    objective = StudentObjective(teacher)
    loss = sum(objective(*batch()).values())
    loss.backward()
    assert 0 < float(loss.detach()) < 2
    assert all(p.grad is None for p in objective.teacher.parameters())
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in objective.backbone.parameters())


def test_shared_voxels_show_the_same_tissue_in_both_crops(case: Case) -> None:
    crops, voxels = next(crop_pairs([case], patch=32, seed=0))
    assert crops.shape == (2, 1, 32, 32, 32)
    values = [crops[n, 0][tuple(voxels[n].T)] for n in range(2)]
    assert np.corrcoef(values[0], values[1])[0, 1] > 0.8
    shuffled = values[1][torch.randperm(len(values[1]), generator=torch.Generator().manual_seed(0))]
    assert np.corrcoef(values[0], shuffled)[0, 1] < 0.2


def test_info_nce_is_minimal_for_equal_descriptors() -> None:
    points = torch.nn.functional.normalize(torch.randn(32, 8, generator=torch.Generator().manual_seed(0)))
    matched, mixed = info_nce(points, points), info_nce(points, points.roll(1, dims=0))
    assert float(matched) < 0.1 * float(mixed)


def test_descriptors_are_sampled_at_the_nearest_index_of_each_level() -> None:
    torch.manual_seed(0)
    pyramid = Backbone(CHANNELS).eval().features(*batch()[:2])
    voxels = torch.tensor([[0, 0, 0], [3, 10, 15], [8, 7, 5]])
    size = pyramid[0].shape[2:]
    dense = torch.cat([torch.nn.functional.interpolate(level, size=size) for level in pyramid], dim=1)[0]
    expected = torch.stack([dense[:, z, y, x] for z, y, x in voxels.tolist()])
    torch.testing.assert_close(descriptors_at(pyramid, voxels), expected)
