"""Volumes and pieces of the organs of training cases."""

from __future__ import annotations

import numpy as np
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.training.organ_statistics import OrganStatistics, organ_statistics

GRID = model_grid(Volume(np.zeros((20, 20, 20), np.int16), np.diag([10.0, 10.0, 10.0, 1.0])), spacing=(10.0,) * 3)


def case(
    slices: int, *, second_piece: bool = False, at_edge: bool = False, drawn: frozenset[int] | None = None
) -> Case:
    """An organ of `slices` x 4 voxels of 1 mL."""
    labels = np.zeros((20, 20, 20), np.uint8)
    first = 0 if at_edge else 5
    labels[first : first + slices, 8:10, 8:10] = 1
    if second_piece:
        labels[15, 15, 15] = 1
    return Case("case", np.zeros(labels.shape, np.float32), labels, GRID, drawn=drawn)


def test_the_range_of_whole_organs_and_their_pieces() -> None:
    cases = [case(n) for n in (3, 4, 5, 6)]
    usual = organ_statistics([*cases, case(7)], [1, 2])
    assert usual == {1: OrganStatistics((12.0, 28.0), True, 5)}
    assert usual[1].entries() == {"usual_ml": [12.0, 28.0], "one_piece": True}
    pieces = organ_statistics([*cases, case(7, second_piece=True)], [1])
    assert pieces == {1: OrganStatistics((12.0, 29.0), False, 5)}


def test_organs_at_the_edge_and_organs_not_annotated_do_not_count() -> None:
    cases = [case(n) for n in (3, 4, 5, 6, 6)]
    others = [case(9, at_edge=True), case(9, drawn=frozenset({2}))]
    assert organ_statistics([*cases, *others], [1])[1].usual_ml == (12.0, 24.0)


def test_fewer_than_five_cases_give_no_statistics() -> None:
    assert organ_statistics([case(n) for n in (3, 4, 5, 6)], [1]) == {}
