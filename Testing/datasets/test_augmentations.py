"""Augmentation for variations of clinical scans: each part has its described effect on its own organs only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from DiffusionSegmentBackend.datasets.augmentations import HospitalAugmentation, PatchBatch
from DiffusionSegmentBackend.datasets.augmentations.bowel import add_bowel
from DiffusionSegmentBackend.datasets.augmentations.contrast_phase import ARTERIAL, NATIVE, shift_phase
from DiffusionSegmentBackend.datasets.augmentations.displacement import Cells, composed, warped
from DiffusionSegmentBackend.datasets.augmentations.field_of_view import cut_field_of_view
from DiffusionSegmentBackend.datasets.augmentations.gut_content import fill_stomach
from DiffusionSegmentBackend.datasets.augmentations.hospital import APPEARANCES, RECONSTRUCTIONS, WARPS
from DiffusionSegmentBackend.datasets.augmentations.low_dose import low_dose
from DiffusionSegmentBackend.datasets.augmentations.masses import add_masses
from DiffusionSegmentBackend.datasets.augmentations.metal import add_metal
from DiffusionSegmentBackend.datasets.augmentations.obesity import add_fat, scale_body
from DiffusionSegmentBackend.datasets.augmentations.organ_size import resize_organ
from DiffusionSegmentBackend.datasets.augmentations.random_window import random_window
from DiffusionSegmentBackend.datasets.augmentations.slice_thickness import thick_slices
from torch import Tensor

ORGANS = {"spleen": 1, "left_kidney": 2, "liver": 3, "stomach": 4, "aorta": 5, "pancreas": 6}
AIR, FAT, MUSCLE = -1000.0, -100.0, 50.0
RECOLOURS = {**APPEARANCES, **RECONSTRUCTIONS}
SPACING = (4.0, 3.0, 3.0)
SHAPE = (40, 72, 72)
# Centre and radius in mm from the patch's middle (z, y, x), label, HU.
SPHERES = (
    ((0.0, 10.0, 55.0), 24.0, 1, 120.0),
    ((-30.0, 30.0, 25.0), 18.0, 2, 180.0),
    ((5.0, -5.0, -48.0), 36.0, 3, 110.0),
    ((12.0, -40.0, 30.0), 24.0, 4, 40.0),
    ((-35.0, 5.0, -5.0), 9.0, 6, 90.0),
)


def positions_mm(spacing: tuple[float, float, float], shape: tuple[int, int, int]) -> list[Tensor]:
    axes = [(torch.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    return list(torch.meshgrid(*axes, indexing="ij"))


def patient(
    *,
    spacing: tuple[float, float, float] = SPACING,
    shape: tuple[int, int, int] = SHAPE,
    count: int = 1,
    fat_mm: float = 10.0,
) -> PatchBatch:
    """A cylindrical body with subcutaneous fat, spherical organs and an aorta along z, the same for every sample."""
    z, y, x = positions_mm(spacing, shape)
    radius = (y**2 + x**2).sqrt()
    image = torch.full(shape, AIR)
    image[radius < 94 + fat_mm] = FAT
    image[radius < 94] = MUSCLE
    labels = torch.zeros(shape, dtype=torch.long)
    tube = (y - 45) ** 2 + x**2 < 10**2
    image[tube], labels[tube] = 150.0, 5
    for (cz, cy, cx), size, value, hu in SPHERES:
        inside = (z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < size**2
        image[inside], labels[inside] = hu, value
    image = image + 4 * torch.randn(shape, generator=torch.Generator().manual_seed(9)) * (image > AIR)
    return PatchBatch(
        image=image.expand(count, 1, *shape).clone(),
        labels=labels.expand(count, 1, *shape).clone(),
        spacing_mm=spacing,
        organs=ORGANS,
    )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(batch: PatchBatch, field_mm: Tensor) -> PatchBatch:
    field = Cells(batch.shape, batch.spacing_mm).in_voxels(field_mm)
    return replace(batch, image=warped(batch.image, field), labels=warped(batch.labels, field, mode="nearest"))


def volume_factor(batch: PatchBatch, field_mm: Tensor, name: str) -> float:
    """Factor of an organ's volume under a displacement, interpolated linearly: whole voxels are too coarse."""
    organ = (batch.labels == ORGANS[name]).float()
    return float(warped(organ, Cells(batch.shape, batch.spacing_mm).in_voxels(field_mm)).sum() / organ.sum())


def without_organs(batch: PatchBatch) -> PatchBatch:
    return replace(batch, labels=torch.zeros_like(batch.labels))


@pytest.mark.parametrize("spacing", [SPACING, (3.0, 3.0, 3.0), (6.0, 2.0, 2.0)])
@pytest.mark.parametrize("factor", [0.45, 2.0, 3.5])
def test_an_organ_gets_the_requested_volume(factor: float, spacing: tuple[float, float, float]) -> None:
    shape = tuple(round(n * step / other) for n, step, other in zip(SHAPE, SPACING, spacing, strict=True))
    before = patient(spacing=spacing, shape=(shape[0], shape[1], shape[2]))
    limits = (factor, factor + 1e-4)
    field = resize_organ(before, seeded(), organs=["spleen"], grown=limits, shrunk=limits)
    assert volume_factor(before, field, "spleen") == pytest.approx(factor, rel=0.12)


def test_neighbours_of_an_enlarged_organ_are_displaced_and_keep_their_volume() -> None:
    before = patient()
    field = resize_organ(before, seeded(), organs=["spleen"], grown=(3, 3.01), shrunk=(3, 3.01))
    after = moved(before, field)
    for name in ("left_kidney", "liver", "stomach", "pancreas"):
        assert volume_factor(before, field, name) == pytest.approx(1, abs=0.15)
    spleen = (before.labels == 1).nonzero().float().mean(dim=0) * torch.tensor([1, 1, *SPACING])
    for value in (2, 4):
        positions = [
            (b.labels == value).nonzero().float().mean(dim=0) * torch.tensor([1, 1, *SPACING]) for b in (before, after)
        ]
        assert (positions[1] - spleen).norm() > (positions[0] - spleen).norm() + 2


def test_image_and_labels_are_displaced_together() -> None:
    before = patient()
    after = moved(before, resize_organ(before, seeded(), organs=["liver"], grown=(2, 2.1), shrunk=(0.5, 0.51)))
    assert float((after.labels == before.labels).float().mean()) < 0.98
    for name, hu in (("liver", 110.0), ("left_kidney", 180.0), ("spleen", 120.0)):
        assert float(after.image[after.labels == ORGANS[name]].median()) == pytest.approx(hu, abs=3)


def test_the_displacement_of_an_enlarged_organ_has_no_folds() -> None:
    before = patient()
    field = Cells(before.shape, SPACING).in_voxels(resize_organ(before, seeded(), grown=(4, 4.01), shrunk=(4, 4.01)))
    for axis in range(3):
        steps = 1 + field[:, axis].diff(dim=axis + 1)
        assert float(steps.min()) > 0


def test_fat_grows_outwards_and_organs_stay() -> None:
    before = patient(shape=(40, 104, 104), fat_mm=24)
    field = add_fat(before, seeded(), growth=(2.0, 2.01))
    after = moved(before, field)
    fat = [float(((b.image > -130) & (b.image < -60)).sum()) for b in (before, after)]
    assert fat[1] / fat[0] == pytest.approx(2, rel=0.25)
    for name in ("liver", "spleen", "left_kidney"):
        assert volume_factor(before, field, name) == pytest.approx(1, abs=0.1)
        positions = [(b.labels == ORGANS[name]).nonzero().float().mean(dim=0)[2:] for b in (before, after)]
        assert ((positions[1] - positions[0]) * torch.tensor(SPACING)).norm() < 4


def test_a_scaled_body_has_one_factor_for_all_organs() -> None:
    before = patient(count=3)
    fields = scale_body(before, seeded(1))
    factors = []
    for n in range(3):
        one = before.of(torch.tensor([n]))
        liver, kidney = (volume_factor(one, fields[n : n + 1], name) for name in ("liver", "left_kidney"))
        assert liver == pytest.approx(kidney, rel=0.05)
        factors.append(liver)
    assert max(factors) > 1.2 * min(factors)


def test_a_composed_warp_equals_two_warps_in_sequence() -> None:
    cells = Cells((30, 30, 30), (6.0, 6.0, 6.0))
    z, y, x = (torch.arange(30) * 6.0).view(-1, 1, 1), (torch.arange(30) * 6.0).view(1, -1, 1), torch.arange(30) * 6.0
    first = torch.stack([0.1 * z.expand(30, 30, 30), 0 * (z + y + x), 0 * (z + y + x)])[None]
    second = torch.stack([-0.2 * z.expand(30, 30, 30), 0 * (z + y + x), 0 * (z + y + x)])[None]
    # The second samples at 0.8 z, the first at 1.1 times that.
    result = composed(first, second, cells.cell_mm)[0, 0]
    torch.testing.assert_close(result, (0.88 - 1) * z.expand(30, 30, 30), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("phase", "aorta", "liver"), [(NATIVE, 42, 56), (ARTERIAL, 290, 66)])
def test_a_phase_changes_only_organs_and_vessels(phase: object, aorta: float, liver: float) -> None:
    before = patient()
    after = shift_phase(before, seeded(), phases=[phase])  # type: ignore[list-item]
    means = {name: float(after.image[before.labels == value].median()) for name, value in ORGANS.items()}
    assert means["aorta"] == pytest.approx(aorta, abs=30)
    assert means["liver"] == pytest.approx(liver, abs=16)
    assert torch.equal(after.labels, before.labels)
    far = torch.nn.functional.max_pool3d((before.labels > 0).float(), 7, 1, 3) == 0
    assert float((after.image - before.image)[far].abs().max()) < 1


def test_a_kidney_shows_its_cortex_in_the_arterial_phase() -> None:
    before = patient()
    after = shift_phase(before, seeded(), phases=[ARTERIAL])
    kidney = (before.labels == 2).float()
    inner = torch.nn.functional.avg_pool3d(kidney, 5, 1, 2) > 0.99
    rim = (kidney > 0) & ~inner
    assert float(after.image[rim].mean() - after.image[inner].mean()) > 40


def test_masses_change_only_one_organ_and_keep_its_label() -> None:
    for seed in range(6):
        before = patient()
        after = add_masses(before, seeded(seed), organs=["liver"])
        change = (after.image - before.image).abs()
        assert float(change[before.labels != 3].max()) == 0
        assert float((change > 10)[before.labels == 3].float().mean()) > 0.001
        assert torch.equal(after.labels, before.labels)


def test_the_stomach_is_filled_inside_its_wall_with_anterior_gas() -> None:
    before = patient()
    gas = fluid = 0
    for seed in range(12):
        after = fill_stomach(before, seeded(seed))
        change = (after.image - before.image).abs()
        assert float(change[before.labels != 4].max()) == 0
        rim = (before.labels == 4) & (torch.nn.functional.avg_pool3d((before.labels == 4).float(), 3, 1, 1) < 0.6)
        assert float(change[rim].median()) < 5
        dark, bright = (after.image < -500) & (before.labels == 4), (after.image > 130) & (before.labels == 4)
        gas, fluid = gas + int(dark.any()), fluid + int(bright.any())
        if dark.any() and bright.any():
            assert dark.nonzero()[:, 3].float().mean() < bright.nonzero()[:, 3].float().mean()
    assert min(gas, fluid) >= 2


def test_bowel_is_added_to_the_background_only() -> None:
    before = patient()
    samples = 0
    for seed in range(8):
        after = add_bowel(before, seeded(seed))
        change = (after.image - before.image).abs()
        assert float(change[before.labels > 0].max()) < 1e-3
        assert float(change[before.image < -500].max()) == 0
        assert torch.equal(after.labels, before.labels)
        samples += int((change > 50).sum() * 36 / 1000 > 5)
    assert samples >= 6


def test_no_bowel_is_added_to_the_chest() -> None:
    before = patient()
    chest = replace(before, organs={"esophagus": 5})
    assert torch.equal(
        add_bowel(replace(chest, labels=chest.labels * (chest.labels == 5)), seeded()).image, before.image
    )


def test_metal_is_dense_and_its_streaks_are_limited_to_its_slices() -> None:
    before = patient()
    after = add_metal(before, seeded(2))
    assert float(after.image.max()) > 2000
    slices = (after.image - before.image).abs().amax(dim=(0, 1, 3, 4)) > 1
    assert 0 < int(slices.sum()) < 15
    assert torch.equal(after.labels, before.labels)


def test_outside_a_cut_field_of_view_are_air_and_background() -> None:
    kinds = set()
    for seed in range(12):
        before = patient()
        after = cut_field_of_view(before, seeded(seed))
        outside = after.image != before.image
        assert bool((after.image[outside] == AIR).all())
        hidden = (after.labels != before.labels)[0, 0]
        assert bool((after.labels[0, 0][hidden] == 0).all())
        kept = after.image[0, 0] > AIR
        kinds.add((bool(kept.any(dim=2).any(dim=1).all()), bool(hidden.any())))
    assert len(kinds) > 1


def test_thick_slices_are_averages_over_their_thickness() -> None:
    z = torch.zeros(1, 1, 40, 4, 4)
    z[:, :, 20] = 800.0
    batch = replace(patient(), image=z, labels=torch.zeros_like(z, dtype=torch.long), spacing_mm=(2.0, 3.0, 3.0))
    thick = thick_slices(batch, seeded(), thickness_mm=(8.0, 8.001)).image[0, 0, :, 0, 0]
    assert float(thick.max()) == pytest.approx(200, rel=0.25)
    assert 4 <= int((thick > 20).sum()) <= 12
    assert torch.equal(thick_slices(batch, seeded(), thickness_mm=(1.0, 1.5)).image, z)
    ramp = torch.arange(40.0).view(1, 1, 40, 1, 1).expand(1, 1, 40, 4, 4).contiguous()
    kept = thick_slices(replace(batch, image=ramp), seeded(), thickness_mm=(6.0, 6.001)).image
    assert float((kept - ramp)[:, :, 6:-6].abs().max()) < 0.01


def test_noise_of_a_low_dose_is_correlated_in_plane_and_not_across_slices() -> None:
    flat = replace(patient(), image=torch.full((1, 1, 40, 64, 64), 50.0), labels=torch.zeros(1, 1, 40, 64, 64).long())
    flat.image[0, 0, 0, 0, :2] = torch.tensor([-1000.0, 1000.0])
    noise = low_dose(replace(flat, spacing_mm=(3.0, 1.0, 1.0)), seeded(), noise_hu=(20, 20.01)).image[0, 0, 1:] - 50
    assert float(noise.std()) == pytest.approx(20, rel=0.05)

    def correlation(a: Tensor, b: Tensor) -> float:
        return float((a * b).mean() / noise.var())

    assert correlation(noise[..., 1:], noise[..., :-1]) > 0.3
    assert abs(correlation(noise[1:], noise[:-1])) < 0.05


def test_noise_does_not_change_clipped_voxels() -> None:
    before = patient()
    after = low_dose(before, seeded())
    assert bool((after.image[before.image == AIR] == AIR).all())


def test_a_random_window_uses_the_whole_gray_scale() -> None:
    before = patient()
    after = random_window(before, seeded(), window=(-125.0, 275.0))
    assert float(after.image.min()) == -125.0
    assert float(after.image.max()) <= 275.0
    contrast = [float(b.image[b.labels == 2].mean() - b.image[b.labels == 3].mean()) for b in (before, after)]
    assert contrast[1] > contrast[0]


@pytest.mark.parametrize("name", list(WARPS))
def test_warps_depend_only_on_the_generator(name: str) -> None:
    batch = patient()
    first, again, other = (WARPS[name](batch, seeded(n)) for n in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", list(RECOLOURS))
def test_appearance_changes_depend_only_on_the_generator(name: str) -> None:
    batch = patient()
    first, again, *others = (RECOLOURS[name](batch, seeded(n)).image for n in (6, 6, 7, 8, 9))
    assert torch.equal(first, again)
    assert not all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("augment", [shift_phase, add_masses, fill_stomach])
def test_without_its_organs_a_patch_is_unchanged(
    augment: Callable[[PatchBatch, torch.Generator], PatchBatch],
) -> None:
    batch = without_organs(patient())
    assert torch.equal(augment(batch, seeded()).image, batch.image)
    unknown = replace(patient(), organs={})
    assert torch.equal(augment(unknown, seeded()).image, unknown.image)


def test_without_its_organs_there_is_no_displacement() -> None:
    assert float(resize_organ(without_organs(patient()), seeded()).abs().max()) == 0


def test_samples_of_a_batch_are_augmented_independently() -> None:
    batch = patient(count=2)
    for name in ("phase", "dose", "masses"):
        image = RECOLOURS[name](batch, seeded(1)).image
        assert not torch.equal(image[0], image[1])


def test_a_third_of_the_patches_is_not_augmented() -> None:
    augmentation = HospitalAugmentation()
    samples = augmentation.draw(3000, seeded())
    assert sum(not parts for parts in samples) / 3000 == pytest.approx(1 / 3, abs=0.03)
    assert {name for parts in samples for name in parts} == set(augmentation.probabilities())


def test_patches_without_augmentation_are_bitwise_equal() -> None:
    batch = patient(count=2)
    samples = (frozenset[str](), frozenset({"phase", "dose", "organ_size"}))
    augmentation = HospitalAugmentation()
    field = augmentation.displacement(batch, samples, seeded())
    assert field is not None
    assert float(field[0].abs().max()) == 0
    assert float(field[1].abs().max()) > 1
    after = augmentation.appearance(batch, samples, seeded())
    assert torch.equal(after.image[0], batch.image[0])
    assert not torch.equal(after.image[1], batch.image[1])
    assert augmentation.displacement(batch, (frozenset(), frozenset({"dose"})), seeded()) is None


def test_all_parts_together_give_finite_values_in_the_window_and_known_labels() -> None:
    certain = dict.fromkeys(HospitalAugmentation().probabilities(), 1.0)
    batch = patient(count=2)
    after = HospitalAugmentation(untouched=0.0, **certain)(batch, seeded())  # type: ignore[arg-type]
    assert after.image.shape == batch.image.shape
    assert after.image.dtype == torch.float32
    assert bool(after.image.isfinite().all())
    assert float(after.image.min()) >= -125
    assert float(after.image.max()) <= 275
    assert after.labels.dtype == batch.labels.dtype
    assert set(after.labels.unique().tolist()) <= set(batch.labels.unique().tolist())


def test_small_patches_of_any_shape_are_accepted() -> None:
    certain = dict.fromkeys(HospitalAugmentation().probabilities(), 1.0)
    augmentation = HospitalAugmentation(untouched=0.0, **certain)  # type: ignore[arg-type]
    for shape in ((1, 9, 7), (16, 16, 16)):
        image = torch.linspace(-125, 275, shape[0] * shape[1] * shape[2]).view(1, 1, *shape)
        batch = PatchBatch(image, torch.ones(1, 1, *shape, dtype=torch.uint8), (3.0, 1.5, 1.5), ORGANS)
        assert augmentation(batch, seeded()).image.shape == image.shape
