"""`study models`: Dice and surface Dice of whole models on labelled scans in their own geometry."""

from __future__ import annotations

from collections.abc import Sequence

from DiffusionSegmentBackend.datasets.labelled_cases import CaseFiles, find_cases
from DiffusionSegmentBackend.evaluation.case_measures import OrganMeasures
from DiffusionSegmentBackend.evaluation.evaluate import Evaluation, EvaluationOptions, evaluate
from DiffusionSegmentBackend.evaluation.summary import DICE, SURFACE_DICE, VOX2VEC_DICE, summarise_output
from DiffusionSegmentBackend.models.model import Model, load_model
from DiffusionSegmentBackend.pipeline.options import SegmentOptions

from .result_file import OrganScores, StudyDescription, StudyResult, StudyRow
from .study import StudyRequest
from .study_data import training_budget


def study(request: StudyRequest) -> StudyResult:
    """Each model on the validation cases of its own data folder."""
    rows: list[StudyRow] = []
    for description, folder in zip(request.descriptions, request.data, strict=True):
        rows += model_rows(load_model(str(description.folder), "auto"), find_cases(folder, part="validation"))
    return StudyResult(
        rows,
        StudyDescription(
            order=5,
            title="The shipped models",
            question="How well do they segment patients they never saw?",
            protocol="Validation cases in their own geometry, the models' default K, S and start; organs that were not "
            "drawn in a case are left out of its mean. Surface Dice at 2 mm. vox2vec's protocol: both label maps read "
            "at 1 x 1 x 2 mm by nearest voxel; an absent organ counts as 1 where none was predicted, else as 0.",
            budget="; ".join(f"{d.name}: {training_budget(d, 'probe')}" for d in request.descriptions),
        ),
    )


def model_rows(model: Model, scans: Sequence[CaseFiles]) -> list[StudyRow]:
    """A row for each of the model's variants, and one of the last by the protocol of vox2vec.

    The last variant is the one that `segment` outputs; its row also has the measures of uncertainty.
    """
    evaluation = evaluate(model, scans, SegmentOptions(), measured=EvaluationOptions(vox2vec=True))
    rows = [
        StudyRow(
            f"{evaluation.model}, {variant}",
            dice=_table(evaluation, variant, DICE),
            surface_dice=_table(evaluation, variant, SURFACE_DICE),
        )
        for variant in evaluation.variants
    ]
    rows[-1].numbers = _numbers(evaluation)
    table = _table(evaluation, evaluation.output_variant, VOX2VEC_DICE)
    return [*rows, StudyRow(f"{evaluation.model}, {evaluation.output_variant}, vox2vec's protocol", dice=table)]


def _numbers(evaluation: Evaluation) -> dict[str, float]:
    output = summarise_output(evaluation)
    if output is None:
        return {}
    coverage = {} if output.interval_coverage is None else {"coverage of 90 % intervals": output.interval_coverage}
    shares = output.errors_in_most_uncertain
    return {
        **{name: round(value, 4) for name, value in coverage.items()},
        **{f"wrong in top {100 * float(share):g} %": round(value, 4) for share, value in shares.items()},
        "islands taken out": output.removed_islands,
        "of them mostly the organ": output.islands_mostly_organ,
    }


def _table(evaluation: Evaluation, variant: str, measure: str) -> OrganScores:
    """Case -> organ -> score, None where the organ is absent from the case or not annotated."""
    return {
        case.name: {organ: _score(case.variants[variant].get(organ), measure) for organ in evaluation.organs}
        for case in evaluation.cases
    }


def _score(measured: OrganMeasures | None, measure: str) -> float | None:
    score = None if measured is None else getattr(measured, measure)
    return None if score is None else round(score, 4)
