"""Out-of-fold maps: those of the trained control arm, on the grid of the trunk, computed once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentResearch.studies import out_of_fold_maps as module
from DiffusionSegmentResearch.studies.bakeoff import BakeoffData
from DiffusionSegmentResearch.studies.bakeoff_data import BakeoffSetup
from DiffusionSegmentResearch.studies.out_of_fold_maps import out_of_fold_maps
from fixtures.segmenter_data import CLASSES
from fixtures.small_bakeoff import plan_in


@pytest.mark.usefixtures("small_arms")
def test_maps_truth_and_image_lie_on_one_grid_and_are_kept(
    tmp_path: Path, data: BakeoffData, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = BakeoffSetup(data, plan_in(tmp_path / "trainings"), fold=1)
    (first,) = out_of_fold_maps(setup)
    assert first.probabilities.shape == (CLASSES, *first.truth.shape)
    np.testing.assert_allclose(first.probabilities.sum(axis=0), 1, atol=5e-3)
    assert first.spacing == (3.0, 3.0, 3.0)
    (_, volume) = data.held_out[0]
    fine = volume.labels.numpy()
    assert first.truth.shape == (fine.shape[0], fine.shape[1] // 2, fine.shape[2] // 2)
    for value in range(1, CLASSES):
        assert np.count_nonzero(first.truth == value) * 4 == pytest.approx(np.count_nonzero(fine == value), rel=0.1)
    assert first.image[first.truth == 1].mean() > first.image[first.truth == 0].mean()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(module, "whole_scan_probabilities", refuse)
    (again,) = out_of_fold_maps(setup)
    np.testing.assert_array_equal(again.probabilities, first.probabilities)
