"""Dice and surface Dice of a whole model on labelled scans in their own geometry."""

from __future__ import annotations

from collections.abc import Sequence

from DiffusionSegmentBackend.datasets.labelled_cases import CaseFiles
from DiffusionSegmentBackend.evaluation.case_measures import OrganMeasures
from DiffusionSegmentBackend.evaluation.evaluate import Evaluation, EvaluationOptions, evaluate
from DiffusionSegmentBackend.evaluation.summary import DICE, SURFACE_DICE, VOX2VEC_DICE, summarise_answer
from DiffusionSegmentBackend.models.model import Model
from DiffusionSegmentBackend.pipeline.options import SegmentOptions

from .result_file import StudyRow


def model_rows(model: Model, scans: Sequence[CaseFiles]) -> list[StudyRow]:
    """A row for each of the model's variants, the last, which `segment` delivers, also as vox2vec measures Dice.

    The last variant's own row carries what was measured of its uncertainty.
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
    table = _table(evaluation, evaluation.answer, VOX2VEC_DICE)
    return [*rows, StudyRow(f"{evaluation.model}, {evaluation.answer}, vox2vec's protocol", dice=table)]


def _numbers(evaluation: Evaluation) -> dict[str, float]:
    answer = summarise_answer(evaluation)
    if answer is None:
        return {}
    coverage = {} if answer.interval_coverage is None else {"coverage of 90 % intervals": answer.interval_coverage}
    shares = answer.errors_in_most_uncertain
    return {
        **{name: round(value, 4) for name, value in coverage.items()},
        **{f"wrong in top {100 * float(share):g} %": round(value, 4) for share, value in shares.items()},
        "islands taken out": answer.islands_taken_out,
        "of them mostly the organ": answer.islands_mostly_organ,
    }


def _table(evaluation: Evaluation, variant: str, measure: str) -> dict[str, dict[str, float | None]]:
    """Case -> organ -> score, None where the case does not show the organ or nobody drew it."""
    return {
        case.name: {organ: _score(case.variants[variant].get(organ), measure) for organ in evaluation.organs}
        for case in evaluation.cases
    }


def _score(measured: OrganMeasures | None, measure: str) -> float | None:
    score = None if measured is None else getattr(measured, measure)
    return None if score is None else round(score, 4)
