"""`study recycling`: Dice over the reverse steps of refiners trained in different ways, and a deterministic refiner."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case, find_cases
from DiffusionSegmentBackend.models.manifest import ModelDescription
from DiffusionSegmentBackend.training.presegmentations import read_presegmentations
from numpy.typing import NDArray

from .refinement import Chain, RefinerUnderTest, chain_scores, dice_of
from .result_file import PlotAxes, StudyDescription, StudyResult, StudyRow, organ_table
from .study import StudyRequest
from .study_data import organ_names, training_budget, training_record, validation_cases

_STEPS = 5
_PURE_NOISE = 0.0


def study(request: StudyRequest) -> StudyResult:
    """The refiners of all models on the validation cases, from the given pre-segmentations."""
    first = request.description
    cases = validation_cases(first, request.data)
    priors = read_presegmentations(request.predictions, cases, first.classes)
    models = [(RefinerUnderTest.load(d), *_scheme(d)) for d in request.descriptions]
    rows = recycling_rows(models, cases, priors, organ_names(first))
    training = sum(len(find_cases(folder)) for folder in request.data)
    description = StudyDescription(
        order=30,
        title="Recycling, and the honesty test",
        question="Does Dice fall over the steps, and does diffusion beat a deterministic refiner?",
        protocol=f"Refiners of one size on one frozen backbone, trained on {training} cases with "
        f"out-of-fold pre-segmentations, tested on {len(cases)} validation cases, on the model's grid; K = 1 unless "
        "noted. 'Ensemble' is the mean of the last step and the pre-segmentation.",
        budget=training_budget(first, "refiner"),
        reference=_reference(rows),
        plot=PlotAxes(x_label="reverse step"),
    )
    return StudyResult(rows, description)


def _scheme(description: ModelDescription) -> tuple[str, float]:
    """The scheme and the start of the training of the refiner."""
    options = training_record(description, "refiner").get("options", {})
    return str(options.get("scheme", "recycling")), float(options.get("abar_start", description.defaults.abar_start))


def _reference(rows: Sequence[StudyRow]) -> str:
    """The deterministic refiner where there is one, else the pre-segmentation."""
    return next((row.name for row in rows if row.name.startswith("deterministic")), rows[0].name)


def chains_of(scheme: str, abar_start: float) -> list[Chain]:
    """The reverse processes of a scheme: from the start of its training, and from the noised pre-segmentation."""
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
    """A row for the pre-segmentation, and for each (model, scheme, abar_start) a row per step of every chain."""
    chains = [(model, chains_of(scheme, start)) for model, scheme, start in models]
    scores = chain_scores(chains, cases, priors)
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
