"""How the minutes of one-command training are split over its stages.

| stage | minutes |
|---|---|
| bodypart: body-part network | 15 %, at most 12 |
| trunk: the network at the trunk's spacing, from random weights, denoising beside it | a quarter of the rest |
| segmenter: the same inside stem and fine path | two fifths of the rest |
| folds: networks for out-of-fold predictions, each two fifths at the trunk's spacing | the rest, in equal parts |
| calibration: temperature from the out-of-fold predictions | none |
| card: model card and measured table | none |
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import DiffusionSegmentError, ErrorCode

STAGES = ("bodypart", "trunk", "segmenter", "folds", "calibration", "card")
MIN_STEPS = 3
_BODYPART_SHARE, _MAX_BODYPART_MINUTES = 0.15, 12.0
_TRUNK_SHARE, _SEGMENTER_SHARE = 0.25, 0.4
_FOLD_TRUNK_SHARE = 0.4
_MIN_MINUTES = 0.02


@dataclass(frozen=True)
class TimePlan:
    """Minutes of training a network; those of `fold_trunk` and `fold_segmenter` are needed once a fold."""

    bodypart: float
    trunk: float
    segmenter: float
    fold_trunk: float
    fold_segmenter: float
    folds: int

    @property
    def stages(self) -> dict[str, float]:
        """Minutes of each stage."""
        folds = self.folds * (self.fold_trunk + self.fold_segmenter)
        trained = {"bodypart": self.bodypart, "trunk": self.trunk, "segmenter": self.segmenter, "folds": folds}
        return {name: trained.get(name, 0.0) for name in STAGES}


def plan_time(minutes: float, *, folds: int) -> TimePlan:
    """Split `minutes` over the stages.

    Raises:
        DiffusionSegmentError: OPTION when a network would have no time worth the name.
    """
    bodypart = min(_BODYPART_SHARE * minutes, _MAX_BODYPART_MINUTES)
    rest = minutes - bodypart
    fold = (1 - _TRUNK_SHARE - _SEGMENTER_SHARE) * rest / folds
    plan = TimePlan(
        bodypart=bodypart,
        trunk=_TRUNK_SHARE * rest,
        segmenter=_SEGMENTER_SHARE * rest,
        fold_trunk=_FOLD_TRUNK_SHARE * fold,
        fold_segmenter=(1 - _FOLD_TRUNK_SHARE) * fold,
        folds=folds,
    )
    shortest = min(plan.bodypart, plan.fold_trunk, plan.fold_segmenter)
    if not shortest >= _MIN_MINUTES:
        needed = minutes * _MIN_MINUTES / shortest if shortest > 0 else 1.0
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"{minutes:g} minutes are too short for {4 + 2 * folds - 1} networks.",
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
