"""The phantom is a plausible abdomen: the organs are there, on the right side, of normal size and density."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.phantom.phantom import Organ, Phantom, make_phantom
from scipy import ndimage

SPACING = (2.5, 2.5, 2.5)
SEEDS = (0, 1, 2)
MODEL = Path(__file__).parents[2] / "DiffusionSegment" / "Resources" / "Models" / "abdomen-ct" / "model.json"

# Millilitres and median HU, wide enough for healthy adults of any build in the portal-venous phase.
NORMAL = {
    Organ.SPLEEN: ((60, 400), (85, 150)),
    Organ.RIGHT_KIDNEY: ((70, 260), (120, 220)),
    Organ.LEFT_KIDNEY: ((70, 260), (120, 220)),
    Organ.GALLBLADDER: ((8, 70), (-10, 40)),
    Organ.ESOPHAGUS: ((8, 35), (20, 80)),
    Organ.LIVER: ((850, 2200), (70, 140)),
    Organ.STOMACH: ((120, 700), (-900, 220)),
    Organ.AORTA: ((50, 180), (100, 200)),
    Organ.INFERIOR_VENA_CAVA: ((35, 130), (90, 180)),
    Organ.PORTAL_AND_SPLENIC_VEIN: ((12, 45), (110, 200)),
    Organ.PANCREAS: ((30, 130), (60, 125)),
    Organ.RIGHT_ADRENAL_GLAND: ((2, 9), (20, 95)),
    Organ.LEFT_ADRENAL_GLAND: ((2, 9), (20, 95)),
}


@pytest.fixture(scope="module", params=SEEDS)
def phantom(request: pytest.FixtureRequest) -> Phantom:
    return make_phantom(seed=request.param, spacing_mm=SPACING)


def centre(phantom: Phantom, organ: Organ) -> np.ndarray:
    """The organ's centroid in LPS mm."""
    k, j, i = np.mean(np.nonzero(phantom.labels == organ), axis=1)
    return (phantom.index_to_lps @ (i, j, k, 1.0))[:3]


def test_labels_are_those_of_the_model() -> None:
    labels = json.loads(MODEL.read_text(encoding="utf-8"))["labels"]
    assert {organ.name.lower(): organ.value for organ in Organ} == {entry["name"]: entry["value"] for entry in labels}


def test_geometry_and_types(phantom: Phantom) -> None:
    assert phantom.image.shape == phantom.labels.shape == (132, 108, 144)
    assert phantom.image.dtype == np.int16
    assert phantom.labels.dtype == np.uint8
    assert phantom.index_to_lps.shape == (4, 4)
    np.testing.assert_array_equal(phantom.index_to_lps[:3, :3], np.diag(SPACING))
    np.testing.assert_array_equal(phantom.index_to_lps[3], (0, 0, 0, 1))


@pytest.mark.parametrize("organ", list(Organ))
def test_organs_have_normal_volumes_and_densities(phantom: Phantom, organ: Organ) -> None:
    (low, high), (darkest, brightest) = NORMAL[organ]
    inside = phantom.labels == organ
    assert low < inside.sum() * np.prod(SPACING) / 1000 < high
    assert darkest < np.median(phantom.image[inside]) < brightest


@pytest.mark.parametrize("organ", [o for o in Organ if o not in (Organ.PORTAL_AND_SPLENIC_VEIN, Organ.PANCREAS)])
def test_organs_are_of_one_piece(phantom: Phantom, organ: Organ) -> None:
    inside = phantom.labels == organ
    pieces, _ = ndimage.label(inside, np.ones((3, 3, 3)))
    assert np.bincount(pieces[inside]).max() > 0.85 * inside.sum()


def test_left_and_right_front_and_back_top_and_bottom(phantom: Phantom) -> None:
    at = {organ: centre(phantom, organ) for organ in Organ}
    left, back, up = ({organ: position[axis] for organ, position in at.items()} for axis in range(3))
    assert left[Organ.LIVER] + 80 < left[Organ.SPLEEN]
    assert left[Organ.RIGHT_KIDNEY] + 80 < left[Organ.LEFT_KIDNEY]
    assert left[Organ.RIGHT_ADRENAL_GLAND] + 40 < left[Organ.LEFT_ADRENAL_GLAND]
    assert left[Organ.GALLBLADDER] < left[Organ.INFERIOR_VENA_CAVA] < left[Organ.AORTA] < left[Organ.STOMACH]
    for kidney in (Organ.RIGHT_KIDNEY, Organ.LEFT_KIDNEY):
        assert back[kidney] > back[Organ.PANCREAS] > back[Organ.GALLBLADDER]
    assert up[Organ.ESOPHAGUS] > up[Organ.LIVER] > up[Organ.RIGHT_KIDNEY]
    assert up[Organ.LEFT_ADRENAL_GLAND] > up[Organ.LEFT_KIDNEY]


def test_air_lung_fat_soft_tissue_and_bone_are_all_there(phantom: Phantom) -> None:
    image = phantom.image
    assert image.min() >= -1024
    assert image.max() <= 3071
    assert np.median(image[:, 0]) < -950, "air in front of the patient"
    body = ndimage.binary_fill_holes(ndimage.binary_opening(image > -300, iterations=2))
    tissue = image[body]
    share = {
        "lung": np.mean((tissue > -950) & (tissue < -700)),
        "fat": np.mean((tissue > -150) & (tissue < -60)),
        "soft": np.mean((tissue > 20) & (tissue < 220)),
        "bone": np.mean(tissue > 300),
    }
    assert share["fat"] > 0.1
    assert share["soft"] > 0.3
    assert 0.01 < share["bone"] < 0.15
    assert np.mean((image[-1] > -950) & (image[-1] < -700)) > 0.1, "lungs in the topmost slice"


def test_liver_is_homogeneous_up_to_the_noise_of_a_scanner(phantom: Phantom) -> None:
    core = ndimage.binary_erosion(phantom.labels == Organ.LIVER, iterations=4)
    assert 6 < np.percentile(np.abs(phantom.image[core] - np.median(phantom.image[core])), 68) < 30


def test_same_seed_same_volume() -> None:
    first, second = (make_phantom(seed=7, spacing_mm=(5, 5, 5)) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.index_to_lps, second.index_to_lps)


def test_seeds_differ_in_size_position_and_density() -> None:
    several = [make_phantom(seed=seed, spacing_mm=(4, 4, 4)) for seed in range(5)]
    livers = [phantom.labels == Organ.LIVER for phantom in several]
    assert np.ptp([liver.sum() for liver in livers]) > 0.05 * livers[0].sum()
    assert np.ptp([np.median(p.image[liver]) for p, liver in zip(several, livers, strict=True)]) > 5
    overlap = 2 * (livers[0] & livers[1]).sum() / (livers[0].sum() + livers[1].sum())
    assert 0.6 < overlap < 0.97


def test_one_seed_is_one_patient_at_every_spacing() -> None:
    fine = make_phantom(seed=3, spacing_mm=(2.5, 2.5, 2.5))
    coarse = make_phantom(seed=3, spacing_mm=(5, 5, 5))
    for organ in (Organ.LIVER, Organ.SPLEEN, Organ.LEFT_KIDNEY, Organ.AORTA):
        np.testing.assert_allclose(centre(fine, organ), centre(coarse, organ), atol=2.5)


def test_small_and_odd_volumes() -> None:
    part = make_phantom(seed=0, spacing_mm=(3, 2, 7), size_mm=(90, 64, 70))
    assert part.image.shape == (10, 32, 30)
    assert make_phantom(seed=0, spacing_mm=(4, 4, 4), size_mm=(4, 4, 4)).image.shape == (1, 1, 1)


@pytest.mark.parametrize(
    ("spacing_mm", "size_mm"), [((0, 1, 1), (9, 9, 9)), ((1, 1, -1), (9, 9, 9)), ((5, 5, 5), (3, 9, 9))]
)
def test_impossible_grids_are_refused(spacing_mm: tuple, size_mm: tuple) -> None:
    with pytest.raises(ValueError, match="not possible"):
        make_phantom(seed=0, spacing_mm=spacing_mm, size_mm=size_mm)
