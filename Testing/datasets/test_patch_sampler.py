"""Patches from volumes in memory: transformed consistently, never mirrored, determined by the seed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from DiffusionSegmentBackend.datasets.appearance import changed_appearance
from DiffusionSegmentBackend.datasets.augmentations import HospitalAugmentation
from DiffusionSegmentBackend.datasets.cutmix import CutMix
from DiffusionSegmentBackend.datasets.patch_geometry import PatchShape, displaced, random_transform, read
from DiffusionSegmentBackend.datasets.patch_sampler import (
    NO_AUGMENTATION,
    Augmentation,
    Patches,
    PatchSampler,
    TrainingSet,
)
from DiffusionSegmentBackend.datasets.prefetch import prefetched
from DiffusionSegmentBackend.datasets.volumes import TrainingVolume, window_values
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from fixtures.segmenter_data import LEFT, RIGHT, STRIDE, WINDOW, small_volume

SHAPE = PatchShape((16, 32, 32), STRIDE)
MOVED = Augmentation(appearance=False)


def sampler(
    *volumes: TrainingVolume, augmentation: Augmentation = MOVED, seed: int = 0, shape: PatchShape = SHAPE
) -> PatchSampler:
    chosen = volumes or (small_volume("a"), small_volume("b", seed=1))
    return PatchSampler([TrainingSet(chosen)], shape=shape, window=WINDOW, augmentation=augmentation, seed=seed)


def same(first: Patches, second: Patches) -> bool:
    return all(torch.equal(getattr(first, key), getattr(second, key)) for key in ("image", "coordinates", "labels"))


def test_a_batch_has_the_specified_shapes_and_ranges() -> None:
    batch = sampler(augmentation=Augmentation()).batch(0, 3)
    assert batch.image.shape == batch.labels.shape == (3, 1, 16, 32, 32)
    assert batch.coordinates.shape == (3, 3, 16, 16, 16)
    assert batch.drawn.tolist() == [[True] * 3] * 3
    assert batch.labels.dtype is torch.uint8
    assert -1 <= float(batch.image.min()) < float(batch.image.max()) <= 1


def test_patches_depend_only_on_seed_and_number() -> None:
    full = Augmentation(cutmix=CutMix(0.5))
    first, second = sampler(augmentation=full), sampler(augmentation=full)
    second.batch(0, 2)
    assert same(first.patch(7), second.patch(7))
    assert same(first.batch(3, 2).samples([1]), first.patch(7))
    assert not same(first.patch(7), first.patch(8))
    assert not same(first.patch(7), sampler(augmentation=full, seed=1).patch(7))


def test_image_and_labels_are_transformed_together() -> None:
    source = sampler()
    right = left = 0
    for number in range(12):
        patch = source.patch(number)
        bright, dark = patch.image > 0.45, (patch.image < -0.35) & (patch.image > -0.7)
        others = 1 - F.one_hot(patch.labels[:, 0].long(), 3).movedim(-1, 1).float()
        inner = F.max_pool3d(F.pad(others, (2,) * 6, value=1.0), 5, 1) == 0
        right += int(inner[:, RIGHT].sum())
        left += int(inner[:, LEFT].sum())
        assert bool(bright[inner[:, RIGHT, None]].all())
        assert bool(dark[inner[:, LEFT, None]].all())
    assert right > 200
    assert left > 200


def test_image_and_coordinates_are_transformed_together() -> None:
    volume = small_volume()
    positions = F.interpolate(_positions(volume)[None], size=volume.coordinates.shape[1:], mode="trilinear")[0]
    located = replace(volume, coordinates=positions)
    # The image holds the coordinate along x, so that the two can be compared after any transform.
    wide = (volume.image.shape[2] - 1) / 255
    ramp = (_positions(volume)[2] / wide).round().to(torch.uint8)
    patch = sampler(replace(located, image=ramp)).patch(3)
    sampled = (patch.image + 1) * 127.5 * wide
    inside = F.avg_pool3d((patch.image > -1).float(), STRIDE) == 1
    inside = -F.max_pool3d(-inside.float(), 5, 1, 2) > 0
    expected = F.avg_pool3d(sampled, STRIDE)[inside]
    assert len(expected) > 200
    assert float((patch.coordinates[:, 2:][inside] * 100 - expected).abs().max()) < 1.5


def _positions(volume: TrainingVolume) -> torch.Tensor:
    return torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in volume.image.shape], indexing="ij"))


def test_organs_are_never_mirrored() -> None:
    whole = PatchShape((24, 40, 48), STRIDE)
    source = sampler(augmentation=Augmentation(cutmix=CutMix(0.5)), shape=whole)
    compared = 0
    for number in range(30):
        labels = source.patch(number).labels[0, 0]
        if min(int((labels == RIGHT).sum()), int((labels == LEFT).sum())) < 200:
            continue
        compared += 1
        middles = [float((labels == value).nonzero()[:, 2].float().mean()) for value in (RIGHT, LEFT)]
        assert middles[0] < middles[1], number
    assert compared > 10


def test_the_affine_part_never_mirrors() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        placement = random_transform(
            torch.tensor([10, 10, 10]),
            patch=SHAPE,
            volume=(24, 40, 48),
            spacing_mm=(3.0, 1.5, 1.5),
            generator=generator,
        )
        assert float(torch.linalg.det(placement.affine[:, :3])) > 0


def test_classes_are_sampled_about_equally_often() -> None:
    volume = small_volume()
    centres = [len(v) for v in volume.centres]
    assert min(centres) > 0
    source = sampler(volume, augmentation=NO_AUGMENTATION, shape=PatchShape((4, 8, 8), STRIDE))
    middles = [int(source.patch(n).labels[0, 0, 2, 4, 4]) for n in range(200)]
    assert 60 < middles.count(RIGHT) < 130
    assert 60 < middles.count(LEFT) < 130


def test_without_augmentation_a_patch_is_a_crop_of_the_volume() -> None:
    volume = small_volume()
    z, y, x = volume.image.shape
    patch = sampler(volume, augmentation=NO_AUGMENTATION, shape=PatchShape((z, y, x), STRIDE)).patch(0)
    torch.testing.assert_close(patch.image[0, 0], volume.image.float() / 127.5 - 1, atol=1e-4, rtol=0)
    assert torch.equal(patch.labels[0, 0], volume.labels)


def test_outside_the_volume_are_air_and_background() -> None:
    volume = small_volume()
    patch = sampler(volume, augmentation=NO_AUGMENTATION, shape=PatchShape((48, 80, 96), STRIDE)).patch(0)
    assert float(patch.image[0, 0, 0].max()) == -1
    assert int(patch.labels[0, 0, 0].max()) == 0
    assert int((patch.labels == RIGHT).sum()) == int((volume.labels == RIGHT).sum())


def test_sampling_from_a_box_equals_sampling_from_the_volume() -> None:
    volume = torch.randint(0, 255, (1, 20, 30, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    placement = random_transform(
        torch.tensor([3, 25, 20]),
        patch=SHAPE,
        volume=(20, 30, 40),
        spacing_mm=(3.0, 1.5, 1.5),
        generator=torch.Generator().manual_seed(5),
    )
    grid = placement.grid(SHAPE.voxels)
    expected = F.grid_sample(volume[None].float(), grid, align_corners=False)
    torch.testing.assert_close(read(volume, grid, mode="bilinear"), expected, atol=0.05, rtol=1e-3)


def test_a_displacement_shifts_the_sampled_voxels() -> None:
    volume = torch.rand((1, 12, 16, 20), generator=torch.Generator().manual_seed(0))
    identity = F.affine_grid(torch.eye(3, 4)[None], [1, 1, 12, 16, 20], align_corners=False)
    displacement = torch.zeros(1, 3, 12, 16, 20)
    displacement[:, 0], displacement[:, 2] = 2, -3
    result = read(volume, displaced(identity, displacement), mode="bilinear")[0]
    torch.testing.assert_close(result[:, :-2, :, 3:], volume[:, 2:, :, :-3], atol=1e-4, rtol=1e-4)


def only(part: str) -> HospitalAugmentation:
    """Augmentation with this part only, in every patch."""
    never = dict.fromkeys(HospitalAugmentation().probabilities(), 0.0)
    return HospitalAugmentation(untouched=0.0, window_hu=WINDOW, **{**never, part: 1.0})


def test_an_enlarged_organ_changes_image_labels_and_coordinates_together() -> None:
    options = replace(NO_AUGMENTATION, hospital=only("organ_size"), organs={"spleen": RIGHT})
    source, plain = sampler(augmentation=options), sampler(augmentation=NO_AUGMENTATION)
    changed = 0
    for number in range(12):
        patch, before = source.patch(number), plain.patch(number)
        moved = (patch.labels == RIGHT) != (before.labels == RIGHT)
        if not moved.any():  # too little of the organ is in the patch
            continue
        changed += 1
        right = patch.image[patch.labels == RIGHT]
        assert float((right > 0.3).float().mean()) > 0.9
        assert not torch.equal(patch.coordinates, before.coordinates)
    assert changed


def test_the_contrast_phase_changes_only_annotated_organs() -> None:
    organs = {"liver": RIGHT, "spleen": LEFT}
    options = replace(NO_AUGMENTATION, hospital=only("phase"), organs=organs)
    for drawn in (None, frozenset({RIGHT})):
        volume = small_volume(drawn=drawn)
        patch = sampler(volume, augmentation=options).patch(0)
        before = sampler(volume, augmentation=NO_AUGMENTATION).patch(0)
        shift = (patch.image - before.image)[before.labels == LEFT].mean()
        assert (abs(float(shift)) > 0.01) == (drawn is None)
        assert torch.equal(patch.labels, before.labels)


def test_cutmix_pastes_a_box_at_the_same_body_coordinates() -> None:
    first, second = small_volume("a"), small_volume("b", seed=1)
    positions = _positions(first)[:, ::2, ::4, ::4].contiguous()
    bright = replace(second, coordinates=positions, image=torch.full_like(second.image, 255))
    dark = replace(first, coordinates=positions, image=torch.full_like(first.image, 1))
    mixed = sampler(dark, bright, augmentation=replace(NO_AUGMENTATION, cutmix=CutMix(1.0)))
    plain = sampler(dark, bright, augmentation=NO_AUGMENTATION)
    for number in range(6):
        patch, before = mixed.patch(number), plain.patch(number)
        changed = patch.image != before.image
        share = float(changed.float().mean())
        assert 0.02 < share < 0.4
        # The volumes are at the same body coordinates, so that labels and coordinates of the box hardly change.
        assert float((patch.labels != before.labels).float().mean()) < 0.1
        assert float((patch.coordinates - before.coordinates).abs().max() * 100) < 12


def test_cutmix_pairs_cases_with_the_same_annotated_organs() -> None:
    whole, part = small_volume("a"), small_volume("b", drawn=frozenset({RIGHT}))
    generator = torch.Generator().manual_seed(0)
    assert CutMix().partner(whole, whole.centres[1][0], [whole, part], generator) is None
    far = replace(small_volume("c"), coordinates=whole.coordinates + 500)
    assert CutMix().partner(whole, whole.centres[1][0], [whole, far], generator) is None
    near = replace(small_volume("d"), coordinates=whole.coordinates)
    result = CutMix().partner(whole, whole.centres[1][0], [whole, near], generator)
    assert result is not None
    assert result[0] is near


def test_organs_without_annotation_are_neither_sampled_nor_labelled() -> None:
    part = small_volume("part", drawn=frozenset({RIGHT}))
    assert part.organs == (RIGHT,)
    assert len(part.centres[LEFT]) == 0
    assert sampler(part).patch(0).drawn.tolist() == [[True, True, False]]
    none = small_volume("none", drawn=frozenset())
    assert sampler(none).patch(0).drawn.tolist() == [[True, False, False]]


def test_a_set_without_scans_is_refused() -> None:
    with pytest.raises(DiffusionSegmentError, match="without scans") as caught:
        PatchSampler([TrainingSet([])], shape=SHAPE, window=WINDOW, augmentation=MOVED, seed=0)
    assert caught.value.code is ErrorCode.TRAINING_DATA


def test_gray_levels_divide_the_window_into_255_steps() -> None:
    values = window_values(torch.tensor([0, 128, 255], dtype=torch.uint8), WINDOW)
    torch.testing.assert_close(values, torch.tensor([-125.0, 75.784, 275.0]), atol=0.01, rtol=0)


def test_appearance_changes_the_values_of_most_patches_and_no_shape() -> None:
    image = torch.linspace(-125, 275, 4 * 16 * 16).reshape(1, 1, 4, 16, 16)
    changed = [changed_appearance(image, WINDOW, torch.Generator().manual_seed(n)) for n in range(60)]
    untouched = sum(torch.equal(item, image) for item in changed)
    assert all(item.shape == image.shape and bool(item.isfinite().all()) for item in changed)
    assert 2 <= untouched <= 20


def test_prefetching_keeps_the_order_and_propagates_errors() -> None:
    def make(number: int) -> int:
        if number == 6:
            raise ValueError("no more")
        return number

    with prefetched(make, start=3, depth=2) as items:
        assert [next(items) for _ in range(3)] == [3, 4, 5]
        with pytest.raises(ValueError, match="no more"):
            next(items)
