"""`study norms`: trunks with different norms, trained alike for the same computing time, scored out of fold."""

from __future__ import annotations

from dataclasses import replace

from DiffusionSegmentBackend.datasets.case_folds import is_gain
from DiffusionSegmentBackend.networks.norm import NORMS

from .bakeoff import MIN_GAIN, TRUNK_RECIPE, BakeoffData, BakeoffPlan, case_gains, score, train_trunk
from .bakeoff_data import FOLDS, read_setup
from .bakeoff_report import bakeoff_description
from .result_file import StudyDescription, StudyResult, StudyRow
from .study import StudyRequest


def study(request: StudyRequest) -> StudyResult:
    """Train and score the trunks that are missing in the folder of trainings."""
    setup = read_setup(request)
    description = norms_description(setup.data, setup.plan, fold=setup.fold, folds=FOLDS)
    return StudyResult(norm_rows(setup.data, setup.plan), description)


def norm_rows(data: BakeoffData, plan: BakeoffPlan) -> list[StudyRow]:
    """A row per norm; reuses trunks and scores in `plan.folder`, also those of a bake-off."""
    rows: list[StudyRow] = []
    for norm in NORMS:
        chosen = replace(plan, norm=norm)
        scores = score(train_trunk(data, chosen), TRUNK_RECIPE, data, plan.folder / f"{chosen.trunk_name}.json", plan)
        numbers = {"training minutes": plan.trunk_minutes}
        if rows and rows[0].dice is not None:
            numbers["kept"] = float(is_gain(case_gains(scores, rows[0].dice), min_mean=MIN_GAIN))
        rows.append(StudyRow(f"{norm} norm", dice=scores, numbers=numbers))
    return rows


def norms_description(data: BakeoffData, plan: BakeoffPlan, *, fold: int, folds: int) -> StudyDescription:
    """The texts of the result file: those of a bake-off, for trunks alone."""
    return replace(
        bakeoff_description(data, plan, fold=fold, folds=folds),
        order=26,
        title="Norm of the trunk",
        question="Is a norm over each voxel's channels as good as group norm, by which overlapping tiles disagree?",
        budget=f"{plan.trunk_minutes:g} minutes a trunk of {plan.threads} cores computing",
        reference=f"{NORMS[0]} norm",
        plot=None,
    )
