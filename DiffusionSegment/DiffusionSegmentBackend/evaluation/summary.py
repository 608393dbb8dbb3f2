"""Means, medians and bootstrap intervals over the cases of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .case_measures import ERROR_SHARES, CaseMeasures, OrganMeasures
from .evaluate import Evaluation
from .statistics import bootstrap_interval

LEVEL, ROUNDS, SEED = 0.95, 2000, 0
DICE, SURFACE_DICE, VOX2VEC_DICE = "dice", "surface_dice_2mm", "dice_1x1x2mm"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Mean and median over `cases` cases, and the 95 % bootstrap interval of the mean, None for fewer than two."""

    mean: float
    median: float
    interval: tuple[float, float] | None
    cases: int


@dataclass(frozen=True, kw_only=True)
class OrganSummary:
    """One organ in one variant over the cases in which it was annotated; volumes are means in mL.

    `scores` by measure, None if no case shows the organ. `mean_absolute_error_ml` is that of the volume.
    """

    scores: dict[str, Estimate | None]
    predicted_ml: float
    true_ml: float
    mean_absolute_error_ml: float


@dataclass(frozen=True, kw_only=True)
class VariantSummary:
    """One variant: by measure the estimate over all cases, each case's value being the mean over its organs."""

    scores: dict[str, Estimate | None]
    organs: dict[str, OrganSummary]


@dataclass(frozen=True, kw_only=True)
class OutputSummary:
    """Uncertainty and islands of the output variant over all cases; coverage is None without any organ."""

    interval_coverage: float | None
    errors_in_most_uncertain: dict[str, float]
    removed_islands: int
    islands_mostly_organ: int


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """The estimate from one value per case, None for a missing one; None without any value."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    interval = bootstrap_interval(known, level=LEVEL, rounds=ROUNDS, seed=SEED) if len(known) > 1 else None
    return Estimate(mean=float(np.mean(known)), median=float(np.median(known)), interval=interval, cases=len(known))


def measures_of(evaluation: Evaluation) -> tuple[str, ...]:
    """Names of the scores of an evaluation."""
    return (DICE, SURFACE_DICE, VOX2VEC_DICE) if evaluation.vox2vec else (DICE, SURFACE_DICE)


def summarise_variant(evaluation: Evaluation, variant: str) -> VariantSummary:
    """Estimates over all cases and by organ; organs without annotation in any case are omitted."""
    measures = measures_of(evaluation)
    return VariantSummary(
        scores={m: estimate(_case_mean(case, variant, m) for case in evaluation.cases) for m in measures},
        organs={
            organ: _organ(evaluation.cases, variant, organ, measures)
            for organ in evaluation.organs
            if any(organ in case.true_ml for case in evaluation.cases)
        },
    )


def summarise_output(evaluation: Evaluation) -> OutputSummary | None:
    """The summary of the output variant; None if it was not measured."""
    outputs = [(case, case.output) for case in evaluation.cases if case.output is not None]
    if not outputs:
        return None
    hits = [
        low <= case.true_ml[organ] <= high
        for case, output in outputs
        for organ, (low, high) in output.intervals_ml.items()
        if case.true_ml[organ] > 0
    ]
    return OutputSummary(
        interval_coverage=float(np.mean(hits)) if hits else None,
        errors_in_most_uncertain={
            str(share): float(np.mean([output.errors_in_most_uncertain[str(share)] for _, output in outputs]))
            for share in ERROR_SHARES
        },
        removed_islands=sum(output.removed_islands for _, output in outputs),
        islands_mostly_organ=sum(output.islands_mostly_organ for _, output in outputs),
    )


def body_coordinate_spread(cases: Sequence[CaseMeasures], organs: Iterable[str]) -> tuple[float, float, float] | None:
    """Standard deviation over cases of the body coordinate at an organ's centroid, median over organs: x, y, z in mm.

    None if no organ is in two cases.
    """
    spreads = []
    for organ in organs:
        points = [point for case in cases if (point := case.body_coordinates_mm.get(organ)) is not None]
        if len(points) > 1:
            spreads.append(np.std(points, axis=0, ddof=1))
    if not spreads:
        return None
    x, y, z = np.median(spreads, axis=0)
    return float(x), float(y), float(z)


def _case_mean(case: CaseMeasures, variant: str, measure: str) -> float | None:
    """Mean over the organs of the case."""
    values = [score for organ in case.variants[variant].values() if (score := getattr(organ, measure)) is not None]
    return float(np.mean(values)) if values else None


def _organ(cases: Sequence[CaseMeasures], variant: str, organ: str, measures: Sequence[str]) -> OrganSummary:
    drawn = [(case.variants[variant][organ], case.true_ml[organ]) for case in cases if organ in case.true_ml]

    def mean(value: Callable[[OrganMeasures, float], float]) -> float:
        return float(np.mean([value(one, true_ml) for one, true_ml in drawn]))

    return OrganSummary(
        scores={m: estimate(getattr(one, m) for one, _ in drawn) for m in measures},
        predicted_ml=mean(lambda one, _: one.predicted_ml),
        true_ml=mean(lambda _, true_ml: true_ml),
        mean_absolute_error_ml=mean(lambda one, true_ml: abs(one.predicted_ml - true_ml)),
    )
