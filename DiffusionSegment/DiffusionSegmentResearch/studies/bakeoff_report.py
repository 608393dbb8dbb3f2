"""The bake-off from beginning to end: trunk, arms, the winner's variants, and the rows of its result file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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
    ArmResult,
    BakeoffData,
    BakeoffPlan,
    Scores,
    better,
    keeps,
    mean_dice,
    run_arm,
    score,
    train_trunk,
    variants_of,
)
from .result_file import ORGAN_GROUPS, StudyRow

STOP_RULES = (
    "Rules, written before the first arm was trained: an arm that is "
    f"{100 * MAX_DEFICIT_AT_HALF:.0f} points behind the control at half its time ends there; a change is kept if the "
    f"mean paired difference is at least {100 * MIN_GAIN:.1f} points and at least five of seven cases gain; of equals "
    "the cheaper one; the one combined change must gain 0.5 points on a second fold."
)


def run_bakeoff(data: BakeoffData, plan: BakeoffPlan, report: Callable[[list[StudyRow]], None]) -> None:
    """Train and score what is missing in `plan.folder`; `report` is called with all rows so far after each arm."""
    trunk = train_trunk(data, plan)
    start = score(trunk, TRUNK_RECIPE, data, plan.folder / "trunk.json", plan)
    done: list[ArmResult] = []

    def run(arms: Sequence[Any]) -> None:
        for arm in arms:
            done.append(run_arm(arm, data, trunk, plan, control=done[0] if done else None))
            report(bakeoff_rows(start, done, plan))

    run([CONTROL, FINE_LOSS, SUB_VOXELS, FINE_PATH])
    winner = better(done[1:] if any(result.end for result in done[1:]) else done).arm
    run(variants_of(winner, data.description))


def bakeoff_rows(start: Scores, results: Sequence[ArmResult], plan: BakeoffPlan) -> list[StudyRow]:
    """The trunk, and each arm at half and at the end; x is the arm's minutes."""
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
    """Steps, seconds of a core a step, Dice by group of organs, and whether the rules keep the arm (1) or not (0)."""
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


def _last(result: ArmResult) -> Scores:
    return result.end if result.end is not None else result.half


def bakeoff_description(data: BakeoffData, plan: BakeoffPlan, *, fold: int, folds: int) -> dict[str, Any]:
    """Title, question, protocol and so on of the result file."""
    organs = [label.name for label in data.description.labels]
    groups = {name: [o for o in members if o in organs] for name, members in ORGAN_GROUPS.items()}
    return {
        "order": 25,
        "title": "Bake-off of the second generation",
        "question": "Which grid and which training are worth the long run?",
        "protocol": f"Fold {fold} of {folds}: trained on {len(data.training)} labelled cases and {len(data.partial)} "
        f"with one organ drawn, scored on {len(data.held_out)} that neither trunk nor arm has seen, in the scans' own "
        "geometry (overlapping patches, arg max of interpolated probabilities), without post-processing. Folds are "
        "alike in slice thickness. Every arm goes on from the same trunk, with the same seed and crops, for the same "
        f"computing time. The body-part network is that of {data.description.name} {data.description.version}, "
        f"which has seen the cases' organ centroids. {STOP_RULES}",
        "budget": f"{plan.trunk_minutes:g} minutes for the trunk, {plan.arm_minutes:g} for an arm, of {plan.threads} "
        "cores computing (their time on other work is not counted)",
        "reference": CONTROL.title,
        "plot": {"x_label": "minutes from the trunk on", "log_x": False, "y": "dice", "y_label": "mean Dice"},
        **({"groups": groups} if all(groups.values()) else {}),
    }
