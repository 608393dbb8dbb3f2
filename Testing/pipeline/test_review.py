"""Regions to review: connected voxels of one pair of labels, their volume, score and centre, and their order."""

from __future__ import annotations

import numpy as np
import pytest
from DiffusionSegmentBackend.imaging.volume import Grid, Volume, model_grid
from DiffusionSegmentBackend.models.manifest import ModelDescription, read_description
from DiffusionSegmentBackend.models.model import find_model
from DiffusionSegmentBackend.pipeline.review import regions_to_review
from DiffusionSegmentBackend.pipeline.segment import Segmentation
from numpy.typing import NDArray

SPLEEN, LIVER, AORTA = 1, 6, 8
SIDE = 24
# Voxels of 3 mm.
VOXEL_ML = 0.027
ORIGIN = (0, 0, 0)


@pytest.fixture(scope="module")
def description() -> ModelDescription:
    return read_description(find_model("abdomen-ct"))


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
    for region in result.report["review"][:5]:
        i, j, k = np.round(np.linalg.solve(phantom_ct.index_to_lps, [*region["centroid_lps_mm"], 1])[:3]).astype(int)
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
    z, y, x = (np.array(region.centroid_lps_mm[::-1]) - grid.lps(np.zeros(3))[::-1]) / 3.0
    assert (z in (3, 4), y, x) == (True, 5, 6)
    assert region.sentence == "Liver or spleen? 2.7 mL, about 40 % of these voxels are expected to be wrong."
    assert (numbers[box] == 1).all()
    assert np.count_nonzero(numbers) == 100


def test_regions_are_sorted_by_score_and_numbered(
    probabilities: NDArray[np.float32], grid: Grid, description: ModelDescription
) -> None:
    """The smaller region has the higher score, because it is less certain."""
    large, small, apart = np.s_[0:6, 0:6, 0:6], np.s_[12:17, 0:6, 0:6], np.s_[0:4, 12:16, 0:4]
    compete(probabilities, large, LIVER, 0, p=0.75)
    compete(probabilities, small, LIVER, 0, p=0.55)
    compete(probabilities, apart, AORTA, SPLEEN, p=0.5)
    regions, numbers = regions_to_review(probabilities, grid, ORIGIN, description)
    assert [region.organ for region in regions] == ["liver", "liver", "aorta"]
    assert [region.score for region in regions] == sorted((region.score for region in regions), reverse=True)
    assert [set(np.unique(numbers[box])) for box in (small, large, apart)] == [{1}, {2}, {3}]


def test_adjacent_voxels_of_different_pairs_are_separate_regions(
    probabilities: NDArray[np.float32], grid: Grid, description: ModelDescription
) -> None:
    compete(probabilities, np.s_[0:4, 0:4, 0:4], LIVER, 0, p=0.6)
    compete(probabilities, np.s_[4:8, 0:4, 0:4], LIVER, SPLEEN, p=0.6)
    regions, _ = regions_to_review(probabilities, grid, ORIGIN, description)
    assert {(region.value, region.competing_value) for region in regions} == {(LIVER, 0), (LIVER, SPLEEN)}


@pytest.mark.parametrize(("voxels", "p", "count"), [(3, 0.5, 0), (4, 0.5, 1), (4, 0.79, 1), (4, 0.81, 0)])
def test_small_or_certain_regions_are_left_out(
    probabilities: NDArray[np.float32], grid: Grid, description: ModelDescription, voxels: int, p: float, count: int
) -> None:
    """At least 0.1 mL, which is 4 voxels of 3 mm, with a largest probability below 0.8."""
    compete(probabilities, np.s_[5:6, 5:6, 5 : 5 + voxels], LIVER, 0, p=p)
    regions, numbers = regions_to_review(probabilities, grid, ORIGIN, description)
    assert len(regions) == numbers.max() == count


def test_at_most_20_regions_are_listed(
    probabilities: NDArray[np.float32], grid: Grid, description: ModelDescription
) -> None:
    for z in range(0, SIDE, 4):
        for y in range(0, SIDE, 4):
            compete(probabilities, np.s_[z : z + 2, y : y + 2, 0:2], LIVER, 0, p=0.5)
    regions, numbers = regions_to_review(probabilities, grid, ORIGIN, description)
    assert len(regions) == numbers.max() == 20


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
