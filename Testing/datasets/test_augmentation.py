"""Augmented patches: image, coordinates and labels are transformed together, and repeated patches differ."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.datasets.patches import patch_batches
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from torch import Tensor

PATCH = 24
MIDDLE_MM = 60.0


def halves_of(shape: tuple[int, int, int]) -> Case:
    """A body of 3 mm voxels: right half dark, without label; left half bright, labelled; coordinates are positions."""
    z, y, x = (3.0 * np.arange(n) for n in shape)
    along_z, along_y, along_x = np.meshgrid(z, y, x, indexing="ij")
    coordinates = np.stack([along_x, along_y, along_z]).astype(np.float16)
    left = along_x > MIDDLE_MM
    image = np.where(left, 0.5, -0.5).astype(np.float32)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    grid = model_grid(Volume(image, affine), spacing=(3.0, 3.0, 3.0))
    return Case("halves", image, left.astype(np.uint8), grid, coordinates=coordinates, drawn=frozenset({1}))


@pytest.fixture
def halves() -> Case:
    """A case that is large enough for rotated patches."""
    return halves_of((40, 44, 40))


def patches(case: Case, *, count: int, augment: bool = True, seed: int = 0) -> list[dict[str, Tensor]]:
    batches = patch_batches([case], classes=2, patch=PATCH, batch=1, augment=augment, seed=seed, workers=0)
    return [next(batches) for _ in range(count)]


def mirrored(item: dict[str, Tensor], axis: int) -> bool:
    """Whether the coordinate of an axis (0 = right-left, 1, 2) falls along the patch's own axis."""
    coordinate = item["coordinates"][0, axis].movedim(2 - axis, 0)
    return bool((coordinate[-1] - coordinate[0]).mean() < 0)


def test_labels_and_coordinates_are_transformed_together(halves: Case) -> None:
    for item in patches(halves, count=16):
        expected = item["coordinates"][0, 0] * 100.0 > MIDDLE_MM
        agreement = (expected == (item["labels"][0, 0] == 1)).float().mean()
        assert agreement > 0.95


def test_labels_and_image_are_transformed_together(halves: Case) -> None:
    for item in patches(halves, count=16):
        image, labels = item["image"][0, 0], item["labels"][0, 0] == 1
        if 0.1 < labels.float().mean() < 0.9:
            assert image[labels].median() > image[~labels].median()


@pytest.mark.parametrize("shape", [(40, 44, 40), (24, 24, 24), (10, 30, 26)])
def test_every_patch_has_the_requested_size(shape: tuple[int, int, int]) -> None:
    for item in patches(halves_of(shape), count=4):
        assert item["image"].shape == (1, 1, PATCH, PATCH, PATCH)
        assert item["coordinates"].shape == (1, 3, PATCH, PATCH, PATCH)
        assert torch.isfinite(item["image"]).all()


def test_without_augmentation_a_patch_is_an_unchanged_crop(halves: Case) -> None:
    for item in patches(halves, count=4, augment=False):
        assert item["image"].shape[2:] == (PATCH, PATCH, PATCH)
        assert torch.equal(item["image"][0, 0] > 0, item["labels"][0, 0] == 1)
        assert set(item["image"].unique().tolist()) <= {-0.5, 0.5}


def test_patches_are_never_mirrored(halves: Case) -> None:
    assert not any(mirrored(item, axis) for item in patches(halves, count=12) for axis in range(3))


def test_augmentation_varies_repeated_patches(halves: Case) -> None:
    shown = [item["image"] for item in patches(halves, count=8)]
    assert not any(torch.equal(a, b) for n, a in enumerate(shown) for b in shown[n + 1 :])


def test_the_same_seed_gives_the_same_patches(halves: Case) -> None:
    first, again = patches(halves, count=3, seed=4), patches(halves, count=3, seed=4)
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0]["image"], patches(halves, count=1, seed=5)[0]["image"])


def test_scans_of_another_contrast_keep_their_values_in_range(halves: Case) -> None:
    values = torch.cat([item["image"].flatten() for item in patches(halves, count=16)])
    assert values.abs().max() < 3.0
