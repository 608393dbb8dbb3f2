"""The study of lists of regions: known errors, known lists."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.models.manifest import ModelDescription, read_description
from DiffusionSegmentBackend.models.model import find_model
from DiffusionSegmentResearch.studies.out_of_fold_maps import OutOfFoldMap
from DiffusionSegmentResearch.studies.region_probability import margin_rows, probability_rows
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


def test_reliability_and_lists_are_measured_by_leaving_one_scan_out(
    truth: NDArray[np.uint8], description: ModelDescription
) -> None:
    """In ten scans a gross error has P = 0.6 and a correct region P = 0.3."""
    maps = []
    for n in range(10):
        item = predicted(truth, np.s_[24:29, 10:16, 6 : 11 + n % 3], p_wrong=0.6)
        probabilities = item.probabilities
        box = np.s_[36:42, 22:28, 6:12]
        probabilities[(LIVER, *box)], probabilities[(0, *box)] = 0.7, 0.3
        maps.append(replace(item, name=f"case {n}"))
    rows = by_name(probability_rows(maps, description, seed=0))
    assert rows["own results"]["regions"] == 20
    assert rows["own results"]["Brier"] < 0.05 < rows["own results"]["Brier of the mean"]
    assert rows["own results, bin 1"]["with a gross error"] == 0
    assert rows["own results, bin 4"]["with a gross error"] == 1
    assert rows["own results, bin 1"]["mean probability"] < rows["own results, bin 4"]["mean probability"]
    assert rows["model of own results"]["mean_error"] > 0
    assert rows["lists before"]["regions of an own result"] == 2
    assert rows["lists after"]["regions of an own result"] == 1
    assert rows["lists after"]["recall at 10"] == rows["lists before"]["recall at 10"] == 1


def test_margins_contain_the_organs_of_the_scans(truth: NDArray[np.uint8], description: ModelDescription) -> None:
    """In one of six scans the network sees the liver only up to a distance of five voxels from its upper end."""
    maps = [predicted(truth, None, p_wrong=0.0) for _ in range(5)]
    maps.append(predicted(truth, np.s_[39:44, 8:32, 4:22], p_wrong=1.0))
    rows = by_name(margin_rows(maps, description))
    assert rows["Liver"] == {"margin, mm": 15.0, "scans": 6, "missed": 0}
    assert rows["Right kidney"]["margin, mm"] == 0
    assert rows["all organs"]["contained, leaving one scan out"] == pytest.approx(17 / 18, abs=1e-3)
