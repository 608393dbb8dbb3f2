"""The study of lists of regions: known errors, known lists."""

from __future__ import annotations

import numpy as np
import pytest
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.models.manifest import ModelDescription, read_description
from DiffusionSegmentBackend.models.model import find_model
from DiffusionSegmentBackend.training.region_calibration import RegionExample
from DiffusionSegmentResearch.studies.out_of_fold_maps import OutOfFoldMap
from DiffusionSegmentResearch.studies.region_probability import (
    list_rows_before_and_after,
    margin_rows,
    reliability_rows,
)
from DiffusionSegmentResearch.studies.regions import list_rows
from DiffusionSegmentResearch.studies.result_file import StudyRow
from DiffusionSegmentResearch.studies.reviewed_errors import reviewed_rows
from numpy.typing import NDArray

RIGHT_KIDNEY, LEFT_KIDNEY, LIVER = 2, 3, 6
SIDE = 48


@pytest.fixture(scope="module")
def description() -> ModelDescription:
    return read_description(find_model("abdomen-ct"))


@pytest.fixture
def truth() -> NDArray[np.uint8]:
    labels = np.zeros((SIDE, SIDE, SIDE), np.uint8)
    labels[20:44, 8:32, 4:22] = LIVER
    labels[4:16, 30:40, 6:14] = RIGHT_KIDNEY
    labels[4:16, 30:40, 34:42] = LEFT_KIDNEY
    return labels


def predicted(truth: NDArray[np.uint8], wrong: tuple[slice, slice, slice] | None, *, p_wrong: float) -> OutOfFoldMap:
    """Certain of the truth, but for a box where background has the probability `p_wrong`."""
    probabilities = np.stack([truth == value for value in range(14)]).astype(np.float32)
    if wrong is not None:
        probabilities[(slice(None), *wrong)] *= 1 - p_wrong
        probabilities[(0, *wrong)] += p_wrong
    image = np.zeros(truth.shape, np.float32)
    grid = model_grid(Volume(image, np.diag([3.0, 3.0, 3.0, 1.0])), spacing=(3.0, 3.0, 3.0))
    return OutOfFoldMap(name="case", probabilities=probabilities, truth=truth, image=image, grid=grid, offset=(0, 0, 0))


def by_name(rows: list[StudyRow]) -> dict[str, dict[str, float]]:
    return {row.name: row.numbers for row in rows}


def test_a_gross_error_with_high_uncertainty_is_the_first_look(
    truth: NDArray[np.uint8], description: ModelDescription
) -> None:
    rows = by_name(list_rows([predicted(truth, np.s_[24:30, 10:18, 8:16], p_wrong=0.6)], description, seed=0))
    assert rows["regions to review"]["recall at 1"] == 1.0
    assert rows["regions to review"]["widest, mm"] <= 40
    assert rows["the truth"]["recall at 10"] == 1.0
    assert rows["largest organ first"]["recall at 10"] < 1.0
    assert rows["random points of surfaces"]["looks with a gross error"] < 0.5


def test_a_correct_label_map_stays_silent_and_swapped_kidneys_do_not(
    truth: NDArray[np.uint8], description: ModelDescription
) -> None:
    rows = by_name(reviewed_rows([predicted(truth, None, p_wrong=0.0)], description))
    assert rows["own results"]["expected wrong, mL"] == 0
    assert rows["expert label maps"]["without a region"] == 1
    for error in (
        "kidneys swapped",
        "liver leaked towards the heart",
        "an organ deleted",
        "a third of an organ cut off",
    ):
        assert rows[error]["error in a region"] == 1.0, error
    assert rows["an organ deleted"]["label maps"] == 3


def test_an_error_that_the_network_makes_too_is_not_listed(
    truth: NDArray[np.uint8], description: ModelDescription
) -> None:
    """The network sees no right kidney: its deletion is known from the alarm alone."""
    rows = by_name(reviewed_rows([predicted(truth, np.s_[4:16, 30:40, 6:14], p_wrong=1.0)], description))
    assert rows["an organ deleted"]["error in a region"] == pytest.approx(2 / 3, abs=1e-3)
    assert rows["an organ deleted"]["error in a region or an alarm"] == 1.0


def test_reliability_is_measured_by_leaving_one_scan_out() -> None:
    """A region holds a gross error where its first feature is positive, but for one in ten."""
    rng = np.random.default_rng(0)
    examples = [
        RegionExample(
            scan=f"case {n % 6}", label_map="own", rank=0, features=tuple(x), gross=(x[0] > 0) == (n % 10 > 0)
        )
        for n, x in enumerate(rng.normal(size=(240, 3)).tolist())
    ]
    rows = by_name(reliability_rows("own results", examples, seed=0))
    assert rows["own results"]["regions"] == 240
    assert rows["own results"]["Brier, low"] < rows["own results"]["Brier"] < rows["own results"]["Brier, high"]
    assert rows["own results"]["Brier"] < 0.15 < rows["own results"]["Brier of the mean"]
    first, last = rows["own results, bin 1"], rows["own results, bin 4"]
    assert first["with a gross error"] < 0.2 < 0.8 < last["with a gross error"]
    assert first["mean probability"] < 0.2 < 0.8 < last["mean probability"]
    assert not reliability_rows("own results", examples[:5], seed=0)


def test_lists_are_equal_where_nothing_could_be_calibrated(
    truth: NDArray[np.uint8], description: ModelDescription
) -> None:
    item = predicted(truth, np.s_[24:30, 10:16, 6:12], p_wrong=0.6)
    before, after = list_rows_before_and_after([item], description, [], [])
    assert before.numbers == after.numbers
    assert before.numbers["regions of an own result"] == before.numbers["recall at 10"] == 1
    assert before.numbers["looks with a gross error"] == 1


def test_margins_contain_the_organs_of_the_scans(truth: NDArray[np.uint8], description: ModelDescription) -> None:
    """In one of six scans the network sees the liver only up to a distance of five voxels from its upper end."""
    maps = [predicted(truth, None, p_wrong=0.0) for _ in range(5)]
    maps.append(predicted(truth, np.s_[39:44, 8:32, 4:22], p_wrong=1.0))
    rows = by_name(margin_rows(maps, description))
    assert rows["Liver"] == {"margin, mm": 15.0, "scans": 6, "missed": 0}
    assert rows["Right kidney"]["margin, mm"] == 0
    assert rows["all organs"]["contained, leaving one scan out"] == pytest.approx(17 / 18, abs=1e-3)
