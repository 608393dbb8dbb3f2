"""Split the minutes of one-command training over its stages.

The time for reading the scans and scoring the held-out ones is measured first (`preparation.py`) and reserved. The rest
is used for training:

| stage | minutes |
|---|---|
| bodypart: body-part regressor, after reading the scans at the spacing of the trunk | 15 %, at most 12 |
| trunk: the network at the trunk's spacing, after reading the scans on the model's grid | a quarter of the rest |
| segmenter: the network on the model's grid | two fifths of the rest |
| folds: networks for out-of-fold predictions, two fifths at the trunk's spacing; scoring | the rest, in equal parts |
| student: optional pseudo-labels: trial on the first fold, then the model | an eighth |
| calibration: temperature from the out-of-fold predictions | none |
| card: model card with measured Dice | none |
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...errors import DiffusionSegmentError, ErrorCode

STAGES = ("bodypart", "trunk", "segmenter", "folds", "student", "calibration", "card")
MIN_STEPS = 3
_BODYPART_SHARE, _MAX_BODYPART_MINUTES = 0.15, 12.0
_TRUNK_SHARE, _SEGMENTER_SHARE = 0.25, 0.4
_FOLD_TRUNK_SHARE = 0.4
_STUDENT_SHARE = 0.125
_MIN_MINUTES = 0.01


@dataclass(frozen=True)
class Preparation:
    """Minutes that are needed in addition to training.

    Attributes:
        timing: Measuring the other times.
        trunk_reading: Reading all scans at the spacing of the trunk.
        reading: Reading all scans on the model's grid.
        scoring: Segmenting each held-out scan once and computing its Dice.
        labelling: Predicting pseudo-labels of one network for each scan; 0 without pseudo-labels.
    """

    timing: float = 0.0
    trunk_reading: float = 0.0
    reading: float = 0.0
    scoring: float = 0.0
    labelling: float = 0.0

    def by_stage(self, folds: int) -> dict[str, float]:
        """Minutes of each stage; the pseudo-label trial scores the cases of one fold twice."""
        student = self.labelling * (1 + folds) + (2 * self.scoring / folds if self.labelling else 0.0)
        reserved = {"bodypart": self.timing + self.trunk_reading, "trunk": self.reading, "folds": self.scoring}
        return {name: {**reserved, "student": student}.get(name, 0.0) for name in STAGES}


NO_PREPARATION = Preparation()


@dataclass(frozen=True)
class TimePlan:
    """Minutes of training for each network, and of reading and scoring.

    `fold_trunk` and `fold_segmenter` are needed once per fold, `trial` twice, with and without pseudo-labels; `trial`
    and `student` are 0 without pseudo-labels.
    """

    bodypart: float
    trunk: float
    segmenter: float
    fold_trunk: float
    fold_segmenter: float
    folds: int
    trial: float = 0.0
    student: float = 0.0
    preparation: Preparation = NO_PREPARATION

    @property
    def reserved(self) -> dict[str, float]:
        """Minutes of each stage for reading and scoring."""
        return self.preparation.by_stage(self.folds)

    @property
    def stages(self) -> dict[str, float]:
        """Minutes of each stage, including reading and scoring."""
        folds = self.folds * (self.fold_trunk + self.fold_segmenter)
        student = 2 * self.trial + self.student
        trained = {"bodypart": self.bodypart, "trunk": self.trunk, "segmenter": self.segmenter, "folds": folds}
        trained["student"] = student
        reserved = self.reserved
        return {name: trained.get(name, 0.0) + reserved[name] for name in STAGES}


def plan_time(
    minutes: float, *, folds: int, pseudo_labels: bool = False, preparation: Preparation = NO_PREPARATION
) -> TimePlan:
    """Split `minutes` over the stages, after those of `preparation` are reserved.

    Raises:
        DiffusionSegmentError: OPTION if the time is too short for a network.
    """
    requested, reserved = minutes, sum(preparation.by_stage(folds).values())
    minutes = max(0.0, minutes - reserved)
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
        preparation=preparation,
    )
    shortest = min(plan.bodypart, plan.fold_trunk, plan.fold_segmenter, *([plan.trial] if pseudo_labels else []))
    if not shortest >= _MIN_MINUTES:
        needed = _shortest_training(folds, pseudo_labels=pseudo_labels) + reserved
        beside = f" Reading and scoring the scans takes about {reserved:.2g} of them." if reserved else ""
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"{requested:g} minutes are too short for {3 + 2 * folds} networks.{beside}",
            hint=f"Give {math.ceil(10 * needed) / 10:.1f} minutes at least; hours make a good model.",
        )
    return plan


def _shortest_training(folds: int, *, pseudo_labels: bool) -> float:
    """The minimum minutes of training, from the minimum of each network."""
    share = (1 - _BODYPART_SHARE) * (1 - (_STUDENT_SHARE if pseudo_labels else 0.0))
    shortest = share * (1 - _TRUNK_SHARE - _SEGMENTER_SHARE) / folds * min(_FOLD_TRUNK_SHARE, 1 - _FOLD_TRUNK_SHARE)
    trial = (1 - _BODYPART_SHARE) * _STUDENT_SHARE / 4
    return _MIN_MINUTES / min([shortest, _BODYPART_SHARE, *([trial] if pseudo_labels else [])])


def refuse_too_few_steps(stage: str, steps: int, minutes: float) -> None:
    """Raise for a stage with fewer than three steps.

    Raises:
        DiffusionSegmentError: OPTION, with the time needed.
    """
    if steps < MIN_STEPS:
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"The stage '{stage}' made {steps} steps in its {60 * minutes:.0f} s.",
            hint=f"Give {MIN_STEPS / max(steps, 1):.0f} times the minutes at least; hours make a good model.",
        )
