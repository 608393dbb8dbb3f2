"""Two evaluations on the same cases: paired differences, their bootstrap intervals and Wilcoxon's test."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import DiffusionSegmentError, ErrorCode
from .scores import Scores, shared_case_means
from .statistics import PairedDifference, holm_adjusted, paired_difference
from .stored_evaluation import StoredEvaluation
from .summary import DICE, LEVEL, ROUNDS, SEED, SURFACE_DICE, VOX2VEC_DICE

# Stored true volumes of the same label map differ only by rounding to 0.01 mL.
_SAME_ML = 0.011


@dataclass(frozen=True, kw_only=True)
class ComparedScore:
    """One measure of one organ, or of all (`organ` None): means over the pairs, and B - A with its p-value.

    `p_holm` is adjusted for the number of organs; None for the row of all organs.
    """

    organ: str | None
    mean_a: float
    mean_b: float
    difference: PairedDifference
    p_holm: float | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Comparison of B with A over their common cases; `rows` by measure, that of all organs first."""

    a: StoredEvaluation
    b: StoredEvaluation
    variant_a: str
    variant_b: str
    cases: tuple[str, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    rows: dict[str, list[ComparedScore]]


def compare(
    a: StoredEvaluation, b: StoredEvaluation, *, variant_a: str | None = None, variant_b: str | None = None
) -> Comparison:
    """Compare a variant of each, None for the one that `segment` outputs; cases and organs are paired by name.

    Raises:
        DiffusionSegmentError: OPTION for a variant that is not in its file; INPUT_VALUES for files without a common
            case or organ, and for a case with different true volumes in the two files.
    """
    names = a.checked_variant(variant_a), b.checked_variant(variant_b)
    cases = tuple(case for case in a.cases if case in b.cases)
    if not cases:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_VALUES,
            f"{a.path} and {b.path} share no case.",
            hint="Evaluate both on the same scans, with the same names.",
        )
    _check_same_truth(a, b, cases)
    measures = (DICE, SURFACE_DICE, VOX2VEC_DICE)
    rows = {m: _rows(a.scores(names[0], m), b.scores(names[1], m), a.organs) for m in measures}
    if not rows[DICE]:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_VALUES,
            f"{a.path} and {b.path} share no organ that was measured in a case of both.",
            hint="Evaluate models of the same organs.",
        )
    return Comparison(
        a=a,
        b=b,
        variant_a=names[0],
        variant_b=names[1],
        cases=cases,
        only_a=tuple(case for case in a.cases if case not in b.cases),
        only_b=tuple(case for case in b.cases if case not in a.cases),
        rows={measure: known for measure, known in rows.items() if known},
    )


def _check_same_truth(a: StoredEvaluation, b: StoredEvaluation, cases: tuple[str, ...]) -> None:
    for case in cases:
        for organ, volume in a.true_ml[case].items():
            other = b.true_ml[case].get(organ, volume)
            if abs(volume - other) > _SAME_ML:
                raise DiffusionSegmentError(
                    ErrorCode.INPUT_VALUES,
                    f"{case} has other true labels in the two files: {organ} of {volume:g} and {other:g} mL.",
                    hint="Evaluate both on the same label maps.",
                )


def _rows(a: Scores, b: Scores, organs: tuple[str, ...]) -> list[ComparedScore]:
    """The row of all organs, and one for each organ with a score in a case of both; empty without any."""
    means = shared_case_means(a, b)
    if not means:
        return []
    rows = [_row(None, means)]
    for organ in organs:
        pairs = [(a[case][organ], b[case][organ]) for case in a if organ in a[case] and organ in b.get(case, {})]
        if pairs:
            rows.append(_row(organ, pairs))
    adjusted = holm_adjusted([row.difference.p for row in rows[1:]])
    return [rows[0], *(replace(row, p_holm=p) for row, p in zip(rows[1:], adjusted, strict=True))]


def _row(organ: str | None, pairs: list[tuple[float, float]]) -> ComparedScore:
    first, second = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return ComparedScore(
        organ=organ,
        mean_a=float(np.mean(first)),
        mean_b=float(np.mean(second)),
        difference=paired_difference(second, first, level=LEVEL, rounds=ROUNDS, seed=SEED),
    )
