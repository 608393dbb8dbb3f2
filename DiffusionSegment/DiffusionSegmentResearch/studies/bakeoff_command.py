"""`diffusion-segment-research study bakeoff | norms`: reads the scans, runs what is missing, writes the result file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from DiffusionSegmentBackend.models.manifest import read_description
from DiffusionSegmentBackend.models.model import choose_device

from .bakeoff import BakeoffPlan
from .bakeoff_data import FOLDS, read_bakeoff_data
from .bakeoff_report import bakeoff_description, run_bakeoff
from .norms import norm_rows, norms_description
from .result_file import StudyRow, write_study


@dataclass(frozen=True, kw_only=True)
class BakeoffOptions:
    """What the command was asked for; minutes are those of `threads` cores computing."""

    fold: int = 1
    trunk_minutes: float = 60.0
    minutes: float = 20.0
    threads: int = 2
    seed: int = 0
    device: str = "auto"


def run_bakeoff_study(
    study: str, model: Path, data: Sequence[Path], output: Path, *, trainings: Path, options: BakeoffOptions
) -> None:
    """Train, score and write; `trainings` keeps checkpoints and scores, from which a stopped study goes on.

    `study` is "bakeoff", or "norms" for trunks alone. `model` gives labels, window, the trunk's spacing and the
    body-part network.

    Raises:
        DiffusionSegmentError: TRAINING_DATA, WEIGHTS_MISSING, OPTION, DISK_FULL.
    """
    device = choose_device(options.device).type
    if device == "cpu":
        torch.set_num_threads(1)  # patches and scans have their own threads
    scans, _ = read_bakeoff_data(read_description(model), data, fold=options.fold)
    plan = BakeoffPlan(
        folder=trainings,
        trunk_minutes=options.trunk_minutes,
        arm_minutes=options.minutes,
        threads=options.threads,
        seed=options.seed,
        device=device,
    )
    folders = " ".join(f"--data {folder}" for folder in data)
    command = (
        f"diffusion-segment-research study {study} --models {model} {folders} -o {output} --trainings {trainings} "
        f"--fold {options.fold} --trunk-minutes {options.trunk_minutes:g}"
    )
    if study == "norms":
        described = norms_description(scans, plan, fold=options.fold, folds=FOLDS)
        write_study(output, norm_rows(scans, plan), command=command, seed=options.seed, **described)
        return
    command += f" --minutes {options.minutes:g}"
    described = bakeoff_description(scans, plan, fold=options.fold, folds=FOLDS)

    def report(rows: list[StudyRow]) -> None:
        write_study(output, rows, command=command, seed=options.seed, **described)

    run_bakeoff(scans, plan, report)
