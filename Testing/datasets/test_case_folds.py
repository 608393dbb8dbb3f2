"""Folds: every case is held out once, never trained on in its own fold, and slice thickness is balanced."""

from __future__ import annotations

import pytest
from DiffusionSegmentBackend.datasets.case_folds import stratified_folds
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from hypothesis import given
from hypothesis import strategies as st

CASES = {f"case_{n:02d}": 5.0 if n % 3 == 0 else 3.0 for n in range(22)}


def test_every_case_is_held_out_once_and_not_in_that_training_set() -> None:
    folds = stratified_folds(CASES, count=3)
    assert [fold.number for fold in folds] == [1, 2, 3]
    assert sorted(name for fold in folds for name in fold.held_out) == sorted(CASES)
    for fold in folds:
        assert not set(fold.training) & set(fold.held_out)
        assert set(fold.training) | set(fold.held_out) == set(CASES)
    assert [len(fold.held_out) for fold in folds] == [8, 7, 7]


def test_thick_and_thin_slices_are_balanced_over_folds() -> None:
    thick = [sum(CASES[name] == 5.0 for name in fold.held_out) for fold in stratified_folds(CASES, count=3)]
    assert max(thick) - min(thick) <= 1


def test_folds_do_not_depend_on_the_order_of_the_cases() -> None:
    assert stratified_folds(dict(reversed(CASES.items())), count=3) == stratified_folds(CASES, count=3)


@given(
    st.dictionaries(st.text(min_size=1, max_size=4), st.floats(0.5, 10), min_size=2, max_size=30),
    st.integers(2, 5),
)
def test_sizes_differ_by_at_most_one(cases: dict[str, float], count: int) -> None:
    if len(cases) < count:
        with pytest.raises(DiffusionSegmentError, match="cannot be split"):
            stratified_folds(cases, count=count)
        return
    sizes = [len(fold.held_out) for fold in stratified_folds(cases, count=count)]
    assert sum(sizes) == len(cases)
    assert max(sizes) - min(sizes) <= 1


def test_a_single_fold_is_refused() -> None:
    with pytest.raises(DiffusionSegmentError, match="not a valid number of folds") as caught:
        stratified_folds(CASES, count=1)
    assert caught.value.code is ErrorCode.OPTION
