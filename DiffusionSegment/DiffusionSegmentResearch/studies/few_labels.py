"""`study labels`: a network trained from scratch, fine-tuned, or frozen under its probe, on few labelled cases."""

from __future__ import annotations

import tempfile
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
from .result_file import PlotAxes, StudyDescription, StudyResult, StudyRow, organ_groups, organ_table
from .study import StudyRequest
from .study_data import load_backbone, load_cohort, training_budget

LABELLED = (1, 3, 6, 18)
FROM_SCRATCH = "from scratch"
BUDGET = Budget(steps=300, learning_rate=2e-3, ema_decay=0.99, bf16=True)
_TASK = "organs"


def study(request: StudyRequest) -> StudyResult:
    """The backbones of the models on few labelled cases."""
    cohort = load_cohort(request.description, request.data)
    pretrained = {d.folder.name: load_backbone(d) for d in request.descriptions}
    starts = starts_of(pretrained, seed=BUDGET.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = request.options.trainings or Path(temporary)
        rows = label_rows(starts, cohort, budget=BUDGET, folder=folder)
    return StudyResult(rows, _description(request, cohort))


def _description(request: StudyRequest, cohort: Cohort) -> StudyDescription:
    return StudyDescription(
        order=22,
        title="Few labels: from scratch, fine-tuned, frozen",
        question="Does pretraining save labels?",
        protocol="One backbone architecture under the product's own probe (3x3x3 convolutions), trained on the "
        f"first {', '.join(map(str, LABELLED))} training cases: both new, or the backbone pretrained, which joins "
        f"after a twentieth of the steps ('fine-tuned') or not at all ('frozen'). Tested on {cohort.validation} "
        "validation cases on the model's grid.",
        budget=f"{BUDGET.steps} steps of two augmented 64-voxel patches a training; pretraining beforehand: "
        f"{training_budget(request.description, 'backbone')}",
        reference=f"{FROM_SCRATCH}, {LABELLED[-1]} labelled",
        plot=PlotAxes(x_label="labelled cases", log_x=True),
        groups=organ_groups(cohort.organs),
    )


@dataclass(frozen=True)
class Start:
    """The initial backbone of a training; with `finetune` it is trained together with its probe."""

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
    """A row for each start and number of labelled cases: Dice of the validation cases on the model's grid.

    Each training takes the first `labelled` training cases and the whole budget; it keeps its checkpoints in `folder`
    and resumes from them.
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
        predictions = presegment(tests, trained.backbone.eval(), probe, device=budget.device, bf16=budget.bf16)
        for case, probabilities in zip(tests, predictions, strict=True):
            assert row.dice is not None
            row.dice[case.name] = organ_table(dice_of(torch.from_numpy(probabilities), case), cohort.organs)
        rows.append(row)
    return rows
