"""The study of alternatives: a known error that one of them repairs, and its controls."""

from __future__ import annotations

import numpy as np
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.models.manifest import read_description
from DiffusionSegmentBackend.models.model import find_model
from DiffusionSegmentResearch.studies.alternatives import alternative_rows
from DiffusionSegmentResearch.studies.out_of_fold_maps import OutOfFoldMap

LIVER = 6
SIDE = 40


def test_the_best_alternative_repairs_a_missing_piece_and_a_random_one_does_not() -> None:
    truth = np.zeros((SIDE, SIDE, SIDE), np.uint8)
    truth[10:30, 10:30, 10:30] = LIVER
    missing = np.s_[15:25, 15:25, 10:18]
    probabilities = np.zeros((14, SIDE, SIDE, SIDE), np.float32)
    probabilities[0], probabilities[LIVER] = truth == 0, truth == LIVER
    probabilities[(0, *missing)], probabilities[(LIVER, *missing)] = 0.6, 0.4
    image = np.zeros(truth.shape, np.float32)
    grid = model_grid(Volume(image, np.diag([3.0, 3.0, 3.0, 1.0])), spacing=(3.0, 3.0, 3.0))
    case = OutOfFoldMap(name="a", probabilities=probabilities, truth=truth, image=image, grid=grid, offset=(0, 0, 0))
    rows = {
        row.name: row.numbers for row in alternative_rows([case], read_description(find_model("abdomen-ct")), seed=0)
    }
    gain = {name: numbers["gain of the case"] for name, numbers in rows.items()}
    assert gain["alternatives"] == gain["the truth"] > 4
    assert 0 <= gain["jittered boundary"] < 0.8 * gain["alternatives"]
    assert rows["alternatives"]["alternatives of a region"] >= 1
    assert rows["the truth"]["gain of a region"] == 100
