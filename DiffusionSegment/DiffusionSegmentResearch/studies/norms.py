"""Which norm the trunk should have: one trunk a norm, trained alike for the same computing time, scored out of fold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from DiffusionSegmentBackend.datasets.case_folds import is_gain
from DiffusionSegmentBackend.networks.norm import NORMS

from .bakeoff import MIN_GAIN, TRUNK_RECIPE, BakeoffData, BakeoffPlan, case_gains, score, train_trunk
from .bakeoff_report import bakeoff_description
from .result_file import StudyRow


def norm_rows(data: BakeoffData, plan: BakeoffPlan) -> list[StudyRow]:
    """A row a norm; trunks and scores that `plan.folder` holds, those of a bake-off included, are not made again."""
    rows: list[StudyRow] = []
    for norm in NORMS:
        chosen = replace(plan, norm=norm)
        scores = score(train_trunk(data, chosen), TRUNK_RECIPE, data, plan.folder / f"{chosen.trunk_name}.json", plan)
        numbers = {"training minutes": plan.trunk_minutes}
        if rows and rows[0].dice is not None:
            numbers["kept"] = float(is_gain(case_gains(scores, rows[0].dice), min_mean=MIN_GAIN))
        rows.append(StudyRow(f"{norm} norm", dice=scores, numbers=numbers))
    return rows


def norms_description(data: BakeoffData, plan: BakeoffPlan, *, fold: int, folds: int) -> dict[str, Any]:
    """Title, question, protocol and so on of the result file: those of a bake-off, of trunks alone."""
    described = bakeoff_description(data, plan, fold=fold, folds=folds)
    described.pop("plot")
    return described | {
        "order": 26,
        "title": "Norm of the trunk",
        "question": "Is a norm over each voxel's channels as good as group norm, which sets overlapping tiles at odds?",
        "budget": f"{plan.trunk_minutes:g} minutes a trunk of {plan.threads} cores computing",
        "reference": f"{NORMS[0]} norm",
    }
