"""Simulated errors of label maps, on the phantom."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from DiffusionSegmentBackend.datasets.label_errors import (
    Labels,
    Spacing,
    delete_organ,
    insert_ball,
    insert_shape,
    leak,
    lose_slab,
    one_hot,
    present_labels,
    softened,
    swap_sides,
    with_error,
)

SPACING: Spacing = (3.0, 2.0, 2.0)
CLASSES = 5
RIGHT, LEFT, LIVER, ABSENT = 1, 2, 3, 4
Error = Callable[[Labels, Spacing, np.random.Generator], Labels]
ERRORS: dict[str, Error] = {
    "delete": delete_organ,
    "ball": partial(insert_ball, value=ABSENT),
    "shape": partial(insert_shape, value=ABSENT),
    "swap": partial(swap_sides, pairs=[(RIGHT, LEFT)]),
    "slab": lose_slab,
    "leak": leak,
}


@pytest.fixture
def labels() -> Labels:
    labels = np.zeros((30, 40, 50), np.uint8)
    labels[4:14, 20:30, 5:15] = RIGHT
    labels[6:16, 20:30, 35:45] = LEFT
    labels[14:24, 10:30, 5:30] = LIVER
    return labels


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_an_error_changes_a_copy_and_is_repeated_by_its_seed(error: Error, labels: Labels) -> None:
    before = labels.copy()
    first, again = (error(labels, SPACING, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(labels, before)
    assert not np.array_equal(first, before)
    assert np.array_equal(first, again)
    assert first.dtype == np.uint8


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_an_error_of_an_empty_map_leaves_it_empty(error: Error, rng: np.random.Generator) -> None:
    assert not error(np.zeros((4, 5, 6), np.uint8), SPACING, rng).any()


def test_a_deleted_organ_is_background_and_the_others_are_unchanged(labels: Labels, rng: np.random.Generator) -> None:
    after = delete_organ(labels, SPACING, rng, value=LIVER)
    assert np.array_equal(after, np.where(labels == LIVER, 0, labels))
    assert len(present_labels(delete_organ(labels, SPACING, rng))) == 2


@pytest.mark.parametrize("name", ["ball", "shape"])
def test_an_insertion_covers_background_only(name: str, labels: Labels, rng: np.random.Generator) -> None:
    after = ERRORS[name](labels, SPACING, rng)
    assert np.array_equal(after[labels > 0], labels[labels > 0])
    assert set(np.unique(after[after != labels])) == {ABSENT}


def test_an_inserted_ball_has_its_radius_in_mm(rng: np.random.Generator) -> None:
    labels = np.zeros((60, 60, 60), np.uint8)
    labels[20, 20, 20] = labels[40, 40, 40] = LIVER
    after = insert_ball(labels, SPACING, rng, value=ABSENT, radius_mm=(12.0, 12.0))
    extent = np.ptp(np.argwhere(after == ABSENT), axis=0) * SPACING
    np.testing.assert_allclose(extent, 24.0)


def test_an_inserted_shape_is_that_of_another_organ(rng: np.random.Generator) -> None:
    labels = np.zeros((60, 60, 60), np.uint8)
    labels[1:4, 1:5, 1:6] = LEFT
    after = insert_shape(labels, SPACING, rng, value=ABSENT, shape_of=LEFT)
    assert np.ptp(np.argwhere(after == ABSENT), axis=0).tolist() == [2, 3, 4]


def test_swapped_kidneys_exchange_their_labels(labels: Labels, rng: np.random.Generator) -> None:
    after = swap_sides(labels, SPACING, rng, pairs=[(RIGHT, LEFT)])
    assert np.array_equal(after == RIGHT, labels == LEFT)
    assert np.array_equal(after == LEFT, labels == RIGHT)
    assert np.array_equal(after == LIVER, labels == LIVER)
    assert np.array_equal(swap_sides(labels, SPACING, rng, pairs=[(7, 8)]), labels)


def test_a_lost_slab_is_a_share_of_the_organ_at_one_of_its_ends(labels: Labels) -> None:
    ends = set()
    for seed in range(8):
        after = lose_slab(labels, SPACING, np.random.default_rng(seed), value=RIGHT, share=(0.3, 0.3))
        planes = np.flatnonzero((labels != after).any(axis=(1, 2))).tolist()
        ends.add(tuple(planes))
    assert ends == {(4, 5, 6), (11, 12, 13)}


def test_a_leak_covers_neighbours_within_its_depth(labels: Labels, rng: np.random.Generator) -> None:
    after = leak(labels, SPACING, rng, value=LIVER, direction=(-1.0, 0.0, -1.0), depth_mm=(10.0, 10.0))
    changed = np.argwhere(after != labels)
    assert set(np.unique(after[after != labels])) == {LIVER}
    assert (labels[after != labels] == RIGHT).any()
    corner = np.array([14, 20, 5])
    assert np.all(np.abs(changed[:, [0, 2]] - corner[[0, 2]]) * [3, 2] <= 12)


def test_softened_labels_keep_the_map_and_have_a_soft_boundary(labels: Labels) -> None:
    soft = softened(labels, SPACING, CLASSES)
    assert np.mean(soft.argmax(axis=0) == labels) > 0.98
    np.testing.assert_allclose(soft.astype(np.float32).sum(axis=0), 1, atol=2e-3)
    assert 0.3 < soft[LIVER, 23, 20, 15] < 0.8
    assert soft[LIVER, 19, 20, 15] > 0.95
    assert np.array_equal(one_hot(labels, CLASSES).argmax(axis=0), labels)


@pytest.mark.parametrize("name", ERRORS)
def test_probabilities_with_an_error_have_its_label_map(name: str, labels: Labels, rng: np.random.Generator) -> None:
    hot = one_hot(labels, CLASSES)
    soft = (0.8 * hot.astype(np.float32) + 0.2 / CLASSES).astype(np.float16)
    after = ERRORS[name](labels, SPACING, rng)
    result = with_error(soft, labels, after, SPACING)
    assert np.array_equal(result.argmax(axis=0), after)
    np.testing.assert_allclose(result.astype(np.float32).sum(axis=0), 1, atol=4e-3)
    far = np.ones(labels.shape, bool)
    if name != "delete":
        far[tuple(slice(max(0, n - 6), m + 7) for n, m in _box(labels != after))] = False
        assert np.array_equal(result[:, far], soft[:, far])


def test_a_deleted_organ_leaves_no_probability_and_swapped_ones_no_rim(
    labels: Labels, rng: np.random.Generator
) -> None:
    soft = softened(labels, SPACING, CLASSES)
    deleted = delete_organ(labels, SPACING, rng, value=LIVER)
    assert with_error(soft, labels, deleted, SPACING)[LIVER].max() == 0
    swapped = swap_sides(labels, SPACING, rng, pairs=[(RIGHT, LEFT)])
    result = with_error(soft, labels, swapped, SPACING)
    assert soft[RIGHT, 8, 25, 15] > 0.1
    assert labels[8, 25, 15] == 0
    assert result[RIGHT, 8, 25, 15] == 0
    assert result[LEFT, 8, 25, 15] == soft[RIGHT, 8, 25, 15]
    assert np.array_equal(with_error(soft, labels, labels, SPACING), soft)


def _box(mask: np.ndarray) -> list[tuple[int, int]]:
    points = np.argwhere(mask)
    return [(int(low), int(high)) for low, high in zip(points.min(axis=0), points.max(axis=0), strict=True)]
