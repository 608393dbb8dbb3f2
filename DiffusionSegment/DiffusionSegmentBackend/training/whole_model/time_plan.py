"""How the minutes of one-command training are split over its stages.

| stage | minutes |
|---|---|
| bodypart: body-part network | 15 %, at most 12 |
| trunk: the network at the trunk's spacing, from random weights, denoising beside it | a quarter of the rest |
| segmenter: the same inside stem and fine path | two fifths of the rest |
| folds: networks for out-of-fold predictions, each two fifths at the trunk's spacing | the rest, in equal parts |
| student: pseudo-labels, where asked for: tried on the first fold, with and without; then the model | an eighth |
| calibration: temperature from the out-of-fold predictions | none |
| card: model card and measured table | none |
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import DiffusionSegmentError, ErrorCode

STAGES = ("bodypart", "trunk", "segmenter", "folds", "student", "calibration", "card")
MIN_STEPS = 3
_BODYPART_SHARE, _MAX_BODYPART_MINUTES = 0.15, 12.0
_TRUNK_SHARE, _SEGMENTER_SHARE = 0.25, 0.4
_FOLD_TRUNK_SHARE = 0.4
_STUDENT_SHARE = 0.125
_MIN_MINUTES = 0.02


@dataclass(frozen=True)
class TimePlan:
    """Minutes of training a network.

    Those of `fold_trunk` and `fold_segmenter` are needed once a fold, those of `trial` twice, for a student and for the
    same training without pseudo-labels; `trial` and `student` are 0 where no pseudo-labels are asked for.
    """

    bodypart: float
    trunk: float
    segmenter: float
    fold_trunk: float
    fold_segmenter: float
    folds: int
    trial: float = 0.0
    student: float = 0.0

    @property
    def stages(self) -> dict[str, float]:
        """Minutes of each stage."""
        folds = self.folds * (self.fold_trunk + self.fold_segmenter)
        student = 2 * self.trial + self.student
        trained = {"bodypart": self.bodypart, "trunk": self.trunk, "segmenter": self.segmenter, "folds": folds}
        trained["student"] = student
        return {name: trained.get(name, 0.0) for name in STAGES}


def plan_time(minutes: float, *, folds: int, pseudo_labels: bool = False) -> TimePlan:
    """Split `minutes` over the stages.

    Raises:
        DiffusionSegmentError: OPTION when a network would have no time worth the name.
    """
    bodypart = min(_BODYPART_SHARE * minutes, _MAX_BODYPART_MINUTES)
    student = _STUDENT_SHARE * (minutes - bodypart) if pseudo_labels else 0.0
    rest = minutes - bodypart - student
    fold = (1 - _TRUNK_SHARE - _SEGMENTER_SHARE) * rest / folds
    plan = TimePlan(
        bodypart=bodypart,
        trunk=_TRUNK_SHARE * rest,
        segmenter=_SEGMENTER_SHARE * rest,
        fold_trunk=_FOLD_TRUNK_SHARE * fold,
        fold_segmenter=(1 - _FOLD_TRUNK_SHARE) * fold,
        folds=folds,
        trial=student / 4,
        student=student / 2,
    )
    shortest = min(plan.bodypart, plan.fold_trunk, plan.fold_segmenter, *([plan.trial] if pseudo_labels else []))
    if not shortest >= _MIN_MINUTES:
        needed = minutes * _MIN_MINUTES / shortest if shortest > 0 else 1.0
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"{minutes:g} minutes are too short for {3 + 2 * folds} networks.",
            hint=f"Give {needed:.1f} minutes at least; hours make a good model.",
        )
    return plan


def refuse_too_few_steps(stage: str, steps: int, minutes: float) -> None:
    """Refuse a stage that ended after less than three steps.

    Raises:
        DiffusionSegmentError: OPTION, with the time that it needs.
    """
    if steps < MIN_STEPS:
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"The stage '{stage}' made {steps} steps in its {60 * minutes:.0f} s.",
            hint=f"Give {MIN_STEPS / max(steps, 1):.0f} times the minutes at least; hours make a good model.",
        )
