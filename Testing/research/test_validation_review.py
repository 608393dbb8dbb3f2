"""`study validation-review`: maps of a model on labelled cases, and their rows."""

from __future__ import annotations

import numpy as np
import pytest
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.models.model import Model
from DiffusionSegmentResearch.studies.expert_reviews import of_drawn
from DiffusionSegmentResearch.studies.validation_review import predicted_map, review_rows

WHOLE = (48, 32, 64)
START = 8


@pytest.fixture(scope="module")
def case(tiny: Model) -> Case:
    """A case cropped by eight slices, with two organs in it."""
    random = np.random.default_rng(0)
    image = random.uniform(-0.5, 0.5, WHOLE).astype(np.float32)
    side = float(tiny.description.spacing_mm[0])
    grid = model_grid(Volume(image, np.diag([side, side, side, 1.0])), spacing=tiny.description.spacing_mm)
    labels = np.zeros(WHOLE, np.uint8)
    labels[20:30, 8:20, 10:22] = 1
    labels[20:30, 8:20, 40:52] = 2
    return Case("case", image[START:], labels[START:], grid, offset=(START, 0, 0))


def test_the_maps_of_a_cropped_case_have_their_place_in_the_scan(tiny: Model, case: Case) -> None:
    item = predicted_map(case, tiny)
    assert item.probabilities.shape[1:] == item.truth.shape == item.image.shape
    np.testing.assert_allclose(item.probabilities.sum(axis=0), 1.0, atol=1e-3)
    z, y, x = item.offset
    assert z >= START
    depth, height, width = item.truth.shape
    expected = case.labels[z - START : z - START + depth, y : y + height, x : x + width]
    np.testing.assert_array_equal(item.truth, expected)


def test_rows_name_lists_reviews_and_alternatives(tiny: Model, case: Case) -> None:
    names = [row.name for row in review_rows([predicted_map(case, tiny)], tiny, seed=0)]
    assert {"regions to review", "the truth", "expert label maps", "a third of an organ cut off"} <= set(names)
    assert "alternatives: jittered boundary" in names
    assert len(names) == len(set(names))


def test_organs_that_are_not_drawn_are_background_for_expert_and_model(tiny: Model, case: Case) -> None:
    whole = predicted_map(case, tiny)
    part = of_drawn(whole, {2})
    assert set(np.unique(part.truth)) == {0, 2}
    np.testing.assert_array_equal(part.truth == 2, whole.truth == 2)
    np.testing.assert_array_equal(part.probabilities[2], whole.probabilities[2])
    assert not part.probabilities[[1, 3]].any()
    np.testing.assert_allclose(part.probabilities.sum(axis=0), 1.0, atol=1e-5)
    assert of_drawn(whole, None) is whole
