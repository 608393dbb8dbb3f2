"""Regions to review: what a glance of 20 mm shows, named after its main pair of labels, the worst first."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from DiffusionSegmentBackend.imaging.volume import Grid, Volume, model_grid
from DiffusionSegmentBackend.models.manifest import ModelDescription, read_description
from DiffusionSegmentBackend.models.model import find_model
from DiffusionSegmentBackend.pipeline.review import error_map, regions_to_review
from DiffusionSegmentBackend.pipeline.segment import Segmentation
from DiffusionSegmentBackend.schema.region_probability import LogisticModel, RegionProbability
from numpy.typing import NDArray

SPLEEN, LIVER, AORTA = 1, 6, 8
SIDE = 40
# Voxels of 3 mm.
VOXEL_ML = 0.027
ORIGIN = (0, 0, 0)


@pytest.fixture(scope="module")
def description() -> ModelDescription:
    return replace(read_description(find_model("abdomen-ct")), region_probability=None, reviewed_error=None)


@pytest.fixture(scope="module")
def grid() -> Grid:
    image = np.zeros((SIDE,) * 3, np.int16)
    return model_grid(Volume(image, np.diag([3.0, 3.0, 3.0, 1.0])), spacing=(3.0, 3.0, 3.0))


@pytest.fixture
def probabilities(description: ModelDescription) -> NDArray[np.float32]:
    """Certain background everywhere."""
    array = np.zeros((description.classes, SIDE, SIDE, SIDE), np.float32)
    array[0] = 1
    return array


def compete(
    probabilities: NDArray[np.float32], box: tuple[slice, slice, slice], first: int, second: int, *, p: float
) -> None:
    """Give the label `first` the probability `p` in the box, and `second` the rest."""
    probabilities[(slice(None), *box)] = 0
    probabilities[(first, *box)] = p
    probabilities[(second, *box)] = 1 - p


def test_regions_of_a_segmentation_are_at_uncertain_voxels(result: Segmentation, phantom_ct: Volume) -> None:
    typical = np.median(result.uncertainty[result.labels > 0])
    for region in result.report.review[:5]:
        i, j, k = np.round(np.linalg.solve(phantom_ct.index_to_lps, [*region.centroid_lps_mm, 1])[:3]).astype(int)
        assert result.uncertainty[k, j, i] > typical


def test_a_region_has_its_pair_of_labels_volume_score_and_centre(
    probabilities: NDArray[np.float32], grid: Grid, description: ModelDescription
) -> None:
    box = np.s_[2:6, 3:8, 4:9]
    compete(probabilities, box, SPLEEN, LIVER, p=0.6)
    (region,), numbers = regions_to_review(probabilities, grid, ORIGIN, description)
    assert (region.organ, region.competing_organ) == ("liver", "spleen")
    assert (region.value, region.competing_value) == (LIVER, SPLEEN)
    assert region.volume_ml == pytest.approx(100 * VOXEL_ML)
    assert region.score == pytest.approx(100 * VOXEL_ML * 0.4)
    z, y, x = (int(n) for n in np.round((np.array(region.centroid_lps_mm) - grid.lps(np.zeros(3)))[::-1] / 3.0))
    assert numbers[z, y, x] == 1
    assert region.sentence == "Liver or spleen? 2.7 mL, about 40 % expected to be wrong."
    assert (numbers[box] == 1).all()
    assert np.count_nonzero(numbers) == 100


def test_regions_are_sorted_by_score_and_numbered(
    probabilities: NDArray[np.float32], grid: Grid, description: ModelDescription
) -> None:
    """The smaller region has the higher score, because it is less certain."""
    large, small, apart = np.s_[0:6, 0:6, 0:6], np.s_[30:35, 0:6, 0:6], np.s_[0:4, 32:36, 0:4]
    compete(probabilities, large, LIVER, 0, p=0.75)
    compete(probabilities, small, LIVER, 0, p=0.55)
    compete(probabilities, apart, AORTA, SPLEEN, p=0.5)
    regions, numbers = regions_to_review(probabilities, grid, ORIGIN, description)
    assert [region.organ for region in regions] == ["liver", "liver", "aorta"]
    assert [region.score for region in regions] == sorted((region.score for region in regions), reverse=True)
    assert [set(np.unique(numbers[box])) for box in (small, large, apart)] == [{1}, {2}, {3}]


def test_what_a_glance_shows_is_one_region_named_after_the_larger_expected_error(
    probabilities: NDArray[np.float32], grid: Grid, description: ModelDescription
) -> None:
    compete(probabilities, np.s_[0:4, 0:4, 0:4], LIVER, 0, p=0.6)
    compete(probabilities, np.s_[4:8, 0:4, 0:4], LIVER, SPLEEN, p=0.55)
    (region,), _ = regions_to_review(probabilities, grid, ORIGIN, description)
    assert (region.value, region.competing_value) == (LIVER, SPLEEN)
    assert region.score == pytest.approx(64 * VOXEL_ML * (0.4 + 0.45), abs=1e-3)


def test_a_rim_around_a_whole_organ_is_listed_in_regions_of_at_most_40_mm(
    probabilities: NDArray[np.float32], grid: Grid, description: ModelDescription
) -> None:
    compete(probabilities, np.s_[2:38, 2:38, 2:38], LIVER, 0, p=0.6)
    compete(probabilities, np.s_[4:36, 4:36, 4:36], LIVER, 0, p=1.0)
    regions, numbers = regions_to_review(probabilities, grid, ORIGIN, description)
    widths = [(np.ptp(np.argwhere(numbers == n + 1), axis=0) + 1) * 3.0 for n in range(len(regions))]
    assert len(regions) == 10
    assert max(width.max() for width in widths) <= 42.0


@pytest.mark.parametrize(("voxels", "p", "count"), [(7, 0.5, 0), (8, 0.5, 1), (24, 0.79, 1), (24, 0.81, 0)])
def test_regions_with_little_expected_error_and_certain_voxels_are_left_out(
    probabilities: NDArray[np.float32], grid: Grid, description: ModelDescription, voxels: int, p: float, count: int
) -> None:
    """At least 0.1 mL expected to be wrong, in voxels with a largest probability below 0.8."""
    compete(probabilities, np.s_[5:6, 5:7, 5 : 5 + voxels // 2], LIVER, 0, p=p)
    if voxels % 2:
        compete(probabilities, np.s_[6:7, 5:6, 5:6], LIVER, 0, p=p)
    regions, numbers = regions_to_review(probabilities, grid, ORIGIN, description)
    assert len(regions) == numbers.max() == count


def test_at_most_10_regions_are_listed(
    probabilities: NDArray[np.float32], grid: Grid, description: ModelDescription
) -> None:
    for z, y, x in product(range(0, SIDE, 18), repeat=3):
        compete(probabilities, np.s_[z : z + 2, y : y + 2, x : x + 2], LIVER, 0, p=0.5)
    regions, numbers = regions_to_review(probabilities, grid, ORIGIN, description)
    assert len(regions) == numbers.max() == 10


def test_a_certain_segmentation_has_no_regions(
    probabilities: NDArray[np.float32], grid: Grid, description: ModelDescription
) -> None:
    regions, numbers = regions_to_review(probabilities, grid, ORIGIN, description)
    assert regions == []
    assert not numbers.any()


def test_the_error_of_a_reviewed_segmentation_is_that_of_the_model_alone(description: ModelDescription) -> None:
    """With w = 0.6, p' = 0.6 + 0.4 p of the given label: 1 - p = (1 - p') / 0.4."""
    mixed = np.zeros((description.classes, 1, 1, 2), np.float32)
    mixed[LIVER], mixed[SPLEEN] = 0.6 + 0.4 * 0.25, 0.4 * 0.75
    errors = error_map(mixed, given_weight=0.6)
    assert errors.probability == pytest.approx(0.75)
    assert (errors.labels == LIVER).all()
    assert (errors.competing == SPLEEN).all()


def test_the_centre_is_a_voxel_of_the_region_and_includes_the_offset(
    probabilities: NDArray[np.float32], grid: Grid, description: ModelDescription
) -> None:
    """The centroid of a frame is outside of it."""
    compete(probabilities, np.s_[4:5, 2:13, 2:13], LIVER, 0, p=0.6)
    compete(probabilities, np.s_[4:5, 4:11, 4:11], LIVER, 0, p=1.0)
    offset = (5, 6, 7)
    (region,), numbers = regions_to_review(probabilities, grid, offset, description)
    voxel = np.argwhere(numbers == 1)
    distances = np.abs(grid.lps(voxel + offset) - region.centroid_lps_mm).max(axis=1)
    assert distances.min() < 0.06


def calibrated(description: ModelDescription, *, threshold: float = 0.0, weight: float = 0.0) -> ModelDescription:
    """A model whose regions have P = 0.5 at a mean error of 0.5, from which it rises by `weight`."""
    model = LogisticModel(intercept=-weight / 2, weights={"mean_error": weight}, threshold=threshold)
    return replace(description, region_probability=RegionProbability(own=model))


def test_a_model_without_calibration_gives_no_probability(
    probabilities: NDArray[np.float32], grid: Grid, description: ModelDescription
) -> None:
    compete(probabilities, np.s_[2:6, 3:8, 4:9], SPLEEN, LIVER, p=0.6)
    (region,), _ = regions_to_review(probabilities, grid, ORIGIN, description)
    assert region.probability is None
    reviewed = replace(
        description, region_probability=RegionProbability(reviewed=LogisticModel(intercept=0, weights={}))
    )
    (region,), _ = regions_to_review(probabilities, grid, ORIGIN, reviewed)
    assert region.probability is None
    mixed = 0.4 * probabilities
    mixed[LIVER] += 0.6
    regions, _ = regions_to_review(mixed, grid, ORIGIN, reviewed, given_weight=0.6)
    assert {region.probability for region in regions} == {0.5}


def test_the_probability_of_a_gross_error_is_in_the_sentence(
    probabilities: NDArray[np.float32], grid: Grid, description: ModelDescription
) -> None:
    compete(probabilities, np.s_[2:6, 3:8, 4:9], SPLEEN, LIVER, p=0.6)
    (region,), _ = regions_to_review(probabilities, grid, ORIGIN, calibrated(description, weight=10.0))
    assert region.probability == pytest.approx(1 / (1 + np.exp(1)), abs=1e-3)
    assert region.sentence == (
        "Liver or spleen? Gross error with 27 % probability; 2.7 mL, about 40 % expected to be wrong."
    )


def test_regions_below_the_threshold_are_not_listed(
    probabilities: NDArray[np.float32], grid: Grid, description: ModelDescription
) -> None:
    certain, uncertain = np.s_[0:6, 0:6, 0:6], np.s_[30:35, 0:6, 0:6]
    compete(probabilities, certain, LIVER, 0, p=0.75)
    compete(probabilities, uncertain, LIVER, 0, p=0.55)
    model = calibrated(description, threshold=0.2, weight=10.0)
    (region,), numbers = regions_to_review(probabilities, grid, ORIGIN, model)
    assert region.probability == pytest.approx(0.378, abs=1e-3)
    assert (numbers[uncertain] == 1).all()
    assert not numbers[certain].any()


@pytest.mark.parametrize(("weight", "of_liver"), [(-8.0, 4), (8.0, 2)])
def test_an_organ_has_two_regions_unless_they_are_nearly_certain(
    probabilities: NDArray[np.float32], grid: Grid, description: ModelDescription, weight: float, of_liver: int
) -> None:
    """A mean error of 0.25, at which P is 0.88 or 0.12."""
    for z, y in product((0, 34), (0, 34)):
        compete(probabilities, np.s_[z : z + 6, y : y + 6, 0:6], LIVER, 0, p=0.75)
    compete(probabilities, np.s_[0:4, 0:4, 34:38], SPLEEN, 0, p=0.75)
    regions, _ = regions_to_review(probabilities, grid, ORIGIN, calibrated(description, weight=weight))
    assert [region.organ for region in regions] == ["liver"] * of_liver + ["spleen"]
    unlimited, _ = regions_to_review(probabilities, grid, ORIGIN, description)
    assert len(unlimited) == 5
