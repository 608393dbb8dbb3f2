"""What pretraining saves in labels: one network from scratch, fine-tuned, or frozen under its probe, on few cases."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from DiffusionSegmentBackend.networks.backbone import Backbone
from DiffusionSegmentBackend.networks.probe import Probe
from DiffusionSegmentBackend.training.loop import Budget
from DiffusionSegmentBackend.training.presegmentations import presegment
from DiffusionSegmentBackend.training.probe import Task, train_probe
from tqdm import tqdm

from .frozen_features import Cohort
from .refinement import dice_of
from .result_file import StudyRow, organ_table

LABELLED = (1, 3, 6, 18)
FROM_SCRATCH = "from scratch"
_TASK = "organs"


@dataclass(frozen=True)
class Start:
    """Where a training begins: a backbone, which learns along with its probe if `finetune`."""

    name: str
    backbone: Backbone
    finetune: bool


def starts_of(pretrained: dict[str, Backbone], *, seed: int) -> list[Start]:
    """A new backbone of the same architecture, and each pretrained one fine-tuned and frozen."""
    first = next(iter(pretrained.values()))
    torch.manual_seed(seed)
    starts = [Start(FROM_SCRATCH, Backbone(first.channels, first.feature_timestep, first.use_coordinates), True)]
    for name, backbone in pretrained.items():
        starts += [Start(f"{name}, fine-tuned", backbone, True), Start(f"{name}, frozen", backbone, False)]
    return starts


def label_rows(
    starts: Sequence[Start],
    cohort: Cohort,
    *,
    budget: Budget,
    folder: Path,
    labelled: Sequence[int] = LABELLED,
    patch: int = 64,
) -> list[StudyRow]:
    """A row for each start and number of labelled cases: Dice on the model's grid of the validation cases.

    Each training takes the first so many training cases and has the whole budget; it keeps its checkpoints in
    `folder` and goes on from those it finds there.
    """
    train, test = cohort.split
    tests = [cohort.cases[i] for i in test]
    classes = len(cohort.organs) + 1
    rows = []
    for start, count in tqdm([(start, count) for count in labelled for start in starts], desc="trainings"):
        trained = train_probe(
            [Task(_TASK, [cohort.cases[i] for i in train[:count]], classes)],
            backbone=deepcopy(start.backbone),
            budget=budget,
            folder=folder / f"{start.name.replace(', ', '-').replace(' ', '-')}-{count}",
            resume=True,
            patch=patch,
            finetune=start.finetune,
        )
        row = StudyRow(f"{start.name}, {count} labelled", dice={}, x=count, series=start.name)
        probe = cast(Probe, trained.probes[_TASK].eval())
        found = presegment(tests, trained.backbone.eval(), probe, device=budget.device, bf16=budget.bf16)
        for case, probabilities in zip(tests, found, strict=True):
            assert row.dice is not None
            row.dice[case.name] = organ_table(dice_of(torch.from_numpy(probabilities), case), cohort.organs)
        rows.append(row)
    return rows
