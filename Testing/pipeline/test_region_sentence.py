"""The sentence of a region to review: its labels, what is uncertain, and where that lies in the patient."""

from __future__ import annotations

import numpy as np
import pytest
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.models.manifest import read_description
from DiffusionSegmentBackend.models.model import find_model
from DiffusionSegmentBackend.pipeline.region_sentence import RegionContent, region_sentence

STOMACH, PANCREAS = 7, 11
CENTRE = (12, 12, 12)


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        ((0, 0, -4), "left of the pancreas"),
        ((0, 0, 4), "right of the pancreas"),
        ((0, -4, 0), "behind the pancreas"),
        ((0, 4, 0), "in front of the pancreas"),
        ((-4, 0, 0), "above the pancreas"),
        ((4, 0, 0), "below the pancreas"),
        ((0, 0, 11), None),
    ],
)
def test_the_nearest_other_organ_says_where_a_region_lies(shift: tuple[int, int, int], words: str | None) -> None:
    """Axes of the grid are those of LPS; an organ beyond 30 mm is not named."""
    labels = np.zeros((25, 25, 25), np.uint8)
    labels[CENTRE] = STOMACH
    labels[tuple(np.add(CENTRE, shift))] = PANCREAS
    grid = model_grid(Volume(labels, np.diag([3.0, 3.0, 3.0, 1.0])), spacing=(3.0, 3.0, 3.0))
    content = RegionContent(pair=(STOMACH, 0), volume_ml=3.0, expected_wrong_ml=1.2, position=CENTRE, labels=labels)
    sentence = region_sentence(content, grid, read_description(find_model("abdomen-ct")))
    where = f" {words}" if words else ""
    assert sentence == f"Stomach or background? 3.0 mL{where}, about 40 % expected to be wrong."
