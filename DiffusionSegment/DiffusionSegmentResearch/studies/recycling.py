"""Does recycling keep Dice from falling over the steps, and does diffusion beat a deterministic refiner?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from numpy.typing import NDArray

from .refinement import Chain, RefinerUnderTest, chain_scores, dice_of
from .result_file import StudyRow, organ_table

_STEPS = 5
_PURE_NOISE = 0.0


def chains_of(scheme: str, abar_start: float) -> list[Chain]:
    """The runs of a scheme: from where its training says that runs start, and from the noised pre-segmentation."""
    if scheme == "deterministic":
        return [Chain("one pass", 1.0, 1)]
    start = Chain("from T'", abar_start, _STEPS)
    if scheme == "recycling" and abar_start > _PURE_NOISE:
        return [
            start,
            Chain("from T', DDPM", abar_start, _STEPS, "ddpm"),
            Chain("from T', K = 4", abar_start, 2, samples=4),
        ]
    return [Chain("from noise", _PURE_NOISE, _STEPS), start]


def recycling_rows(
    models: Sequence[tuple[RefinerUnderTest, str, float]],
    cases: Sequence[Case],
    priors: Sequence[NDArray[np.float16]],
    organs: Sequence[str],
) -> list[StudyRow]:
    """One row for the pre-segmentation, and for each (model, scheme, abar_start) a row a step of every chain."""
    work = [(model, chains_of(scheme, start)) for model, scheme, start in models]
    scores = chain_scores(work, cases, priors)
    rows = [_prior_row(cases, priors, organs)]
    for (model, chain), steps in scores.items():
        name = f"{model}, {chain}"
        for n, by_case in enumerate(steps, start=1):
            rows.append(_row(f"{name}, step {n}", cases, [both[0] for both in by_case], organs, x=n, series=name))
        last = [both[1] for both in steps[-1]]
        rows.append(_row(f"{name}, ensemble", cases, last, organs))
    return rows


def _row(
    name: str,
    cases: Sequence[Case],
    values: Sequence[NDArray[np.float64]],
    organs: Sequence[str],
    *,
    x: float | None = None,
    series: str | None = None,
) -> StudyRow:
    dice = {case.name: organ_table(v, organs) for case, v in zip(cases, values, strict=True)}
    return StudyRow(name, dice=dice, x=x, series=series)


def _prior_row(cases: Sequence[Case], priors: Sequence[NDArray[np.float16]], organs: Sequence[str]) -> StudyRow:
    values = [dice_of(torch.from_numpy(prior).float(), case) for case, prior in zip(cases, priors, strict=True)]
    return _row("pre-segmentation", cases, values, organs)
