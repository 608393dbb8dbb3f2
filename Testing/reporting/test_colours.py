"""Colours of organs can be distinguished: clearly on a report; in Slicer, standard colours are mostly kept."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.reporting.colours import MIN_DISTANCE, RGB, cie_lab, distinct_colours

RESOURCES = Path(__file__).resolve().parents[2] / "DiffusionSegment" / "Resources"
DESCRIPTIONS = [*sorted(RESOURCES.glob("Models/*/model.json")), *sorted(RESOURCES.glob("Manifests/*.json"))]
# CIE Lab distance below which two segments cannot be distinguished in a slice view, at half opacity; 2.3 is just
# noticeable for large fields side by side.
INDISTINGUISHABLE = 8.0


def standard_colours(path: Path) -> list[RGB]:
    return [tuple(label["colour"]) for label in json.loads(path.read_text(encoding="utf-8"))["labels"]]


def nearest_pair(colours: list[RGB]) -> float:
    return min(float(np.linalg.norm(cie_lab(a) - cie_lab(b))) for a, b in itertools.combinations(colours, 2))


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
    ],
)
def test_lab_is_that_of_the_standard(rgb: RGB, lab: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(cie_lab(rgb), lab, atol=0.02)


@pytest.mark.parametrize("path", DESCRIPTIONS, ids=lambda path: path.relative_to(RESOURCES).as_posix())
def test_any_two_organs_of_a_model_have_distinct_colours(path: Path) -> None:
    standard = standard_colours(path)
    assert nearest_pair(standard) >= INDISTINGUISHABLE, "segments in Slicer"
    assert nearest_pair(distinct_colours(standard)) >= MIN_DISTANCE, "outlines and swatches of a report"


def test_colours_that_differ_enough_are_kept() -> None:
    colours: list[RGB] = [(157, 108, 162), (0, 151, 206), (244, 214, 49)]
    assert distinct_colours(colours) == colours


def test_the_first_of_two_similar_colours_is_kept_and_the_second_changes_slightly() -> None:
    first, second = distinct_colours([(221, 130, 101), (216, 132, 105)])
    assert first == (221, 130, 101)
    assert MIN_DISTANCE <= np.linalg.norm(cie_lab(first) - cie_lab(second)) < 1.5 * MIN_DISTANCE


def test_a_hundred_organs_get_a_colour_each() -> None:
    colours = distinct_colours([(200, 120, 100)] * 100)
    assert len(set(colours)) == 100
    assert nearest_pair(colours) > 5
