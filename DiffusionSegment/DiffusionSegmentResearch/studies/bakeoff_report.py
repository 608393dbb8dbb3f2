"""`study bakeoff`: trunk, arms, variants of the best arm, and the rows of the result file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from DiffusionSegmentBackend.training.loop import CHECKPOINT_FILE

from .bakeoff import (
    CONTROL,
    FINE_LOSS,
    FINE_PATH,
    MAX_DEFICIT_AT_HALF,
    MIN_GAIN,
    SUB_VOXELS,
    TRUNK_RECIPE,
    Arm,
    ArmResult,
    BakeoffData,
    BakeoffPlan,
    better,
    keeps,
    mean_dice,
    run_arm,
    score,
    train_trunk,
    variants_of,
)
from .bakeoff_data import FOLDS, read_setup
from .result_file import (
    ORGAN_GROUPS,
    OrganScores,
    PlotAxes,
    StudyDescription,
    StudyResult,
    StudyRow,
    organ_groups,
)
from .study import StudyRequest
from .study_data import organ_names

STOP_RULES = (
    "Rules, fixed before the first arm was trained: an arm that is "
    f"{100 * MAX_DEFICIT_AT_HALF:.0f} points below the control after half its time is stopped; a change is kept if the "
    f"mean paired difference is at least {100 * MIN_GAIN:.1f} points and at least five of seven cases gain; of equals "
    "the cheaper one; the one combined change must gain 0.5 points on a second fold."
)


def study(request: StudyRequest) -> StudyResult:
    """Train and score what is missing; the result file is written after each arm."""
    setup = read_setup(request)
    description = bakeoff_description(setup.data, setup.plan, fold=setup.fold, folds=FOLDS)
    rows: list[StudyRow] = []

    def report(rows_so_far: list[StudyRow]) -> None:
        rows[:] = rows_so_far
        request.save(StudyResult(rows, description))

    run_bakeoff(setup.data, setup.plan, report)
    return StudyResult(rows, description)


def run_bakeoff(data: BakeoffData, plan: BakeoffPlan, report: Callable[[list[StudyRow]], None]) -> None:
    """Train and score what is missing in `plan.folder`; calls `report` with all rows after each arm."""
    trunk = train_trunk(data, plan)
    start = score(trunk, TRUNK_RECIPE, data, plan.folder / "trunk.json", plan)
    results: list[ArmResult] = []

    def run(arms: Sequence[Arm]) -> None:
        for arm in arms:
            results.append(run_arm(arm, data, trunk, plan, control=results[0] if results else None))
            report(bakeoff_rows(start, results, plan))

    run([CONTROL, FINE_LOSS, SUB_VOXELS, FINE_PATH])
    winner = better(results[1:] if any(result.end for result in results[1:]) else results).arm
    run(variants_of(winner, data.description))


def bakeoff_rows(start: OrganScores, results: Sequence[ArmResult], plan: BakeoffPlan) -> list[StudyRow]:
    """A row for the trunk, and for each arm after half its time and at the end; x is the minutes of the arm."""
    rows = [StudyRow("trunk", dice=start, numbers={"training minutes": plan.trunk_minutes}, x=0, series="trunk")]
    for result in results:
        shares = [(0.5, result.half)] + ([(1.0, result.end)] if result.end is not None else [])
        for share, scores in shares:
            title = result.arm.title if share == 1 else f"{result.arm.title}, half time"
            minutes = round(share * plan.arm_minutes, 1)
            rows.append(StudyRow(title, dice=scores, x=minutes, series=result.arm.title))
        rows[-1].numbers = _numbers(result, results, plan)
    return rows


def _numbers(result: ArmResult, results: Sequence[ArmResult], plan: BakeoffPlan) -> dict[str, float]:
    """Steps, core seconds per step, Dice by group of organs, and whether the rules keep the arm (1) or not (0)."""
    numbers: dict[str, float] = {}
    path = plan.folder / result.arm.name / CHECKPOINT_FILE
    if path.is_file():
        state = torch.load(path, map_location="cpu", weights_only=True)
        numbers["steps"] = state["step"]
        numbers["core seconds a step"] = round(plan.threads * state["seconds"] / max(1, state["step"]), 2)
    for group, organs in ORGAN_GROUPS.items():
        known = {case: {o: v for o, v in values.items() if o in organs} for case, values in _last(result).items()}
        if any(known.values()):
            numbers[f"Dice, {group} organs"] = round(100 * mean_dice(known), 2)
    if result is not results[0]:
        variants = [v for v in results[:4] if result.arm.name.startswith(f"{v.arm.name}-")]
        numbers["kept"] = float(keeps(result, variants[0] if variants else results[0]))
    return numbers


def _last(result: ArmResult) -> OrganScores:
    return result.end if result.end is not None else result.half


def bakeoff_description(data: BakeoffData, plan: BakeoffPlan, *, fold: int, folds: int) -> StudyDescription:
    """The texts of the result file."""
    return StudyDescription(
        order=25,
        title="Bake-off of the second generation",
        question="Which grid and which training are worth the long run?",
        protocol=f"Fold {fold} of {folds}: trained on {len(data.training)} labelled cases and {len(data.partial)} "
        f"with one organ annotated, scored on {len(data.held_out)} that neither trunk nor arm has seen, in the scans' "
        "own geometry (overlapping patches, arg max of interpolated probabilities), without post-processing. Folds are "
        "alike in slice thickness. Every arm starts from the same trunk, with the same seed and crops, for the same "
        f"computing time. The body-part network is that of {data.description.name} {data.description.version}, "
        f"which has seen the cases' organ centroids. {STOP_RULES}",
        budget=f"{plan.trunk_minutes:g} minutes for the trunk, {plan.arm_minutes:g} for an arm, of {plan.threads} "
        "cores computing (their time on other work is not counted)",
        reference=CONTROL.title,
        plot=PlotAxes(x_label="minutes from the trunk on"),
        groups=organ_groups(organ_names(data.description)),
    )
