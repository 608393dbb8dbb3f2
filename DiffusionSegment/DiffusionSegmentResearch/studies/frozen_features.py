"""Dice of pointwise probes on frozen features: cross-validated, over timesteps, and with few labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.networks.pointwise_probe import HEADS
from DiffusionSegmentBackend.training.presegmentations import write_presegmentations
from numpy.typing import NDArray
from tqdm import tqdm

from .frozen_probes import ProbeJob, predict_pointwise, score_pointwise, train_pointwise
from .result_file import StudyRow, organ_table
from .voxel_features import FeatureSource, training_table, whole_scan_table

TIMESTEPS = (1, 10, 25, 50, 100, 250)
LABELLED = (1, 3, 6)


@dataclass(frozen=True)
class Cohort:
    """Cases on the model's grid with coordinates; the last `validation` of them are the validation cases."""

    cases: Sequence[Case]
    validation: int
    organs: tuple[str, ...]

    @property
    def split(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Indices of the training and of the validation cases."""
        first = len(self.cases) - self.validation
        return tuple(range(first)), tuple(range(first, len(self.cases)))


def cross_validation_jobs(cohort: Cohort, *, folds: int, heads: Sequence[str] = HEADS) -> list[ProbeJob]:
    """A job for each head and fold; every `folds`-th case is tested in the same fold."""
    indices = range(len(cohort.cases))
    return [
        ProbeJob(head, head, tuple(i for i in indices if i % folds != f), tuple(i for i in indices if i % folds == f))
        for head in heads
        for f in range(folds)
    ]


def split_job(cohort: Cohort, name: str, *, labelled: int | None = None) -> ProbeJob:
    """The non-linear probe on the training cases, or the first `labelled` of them, tested on the validation cases."""
    train, test = cohort.split
    return ProbeJob(name, "nonlinear", train[:labelled], test)


def measure(
    source: FeatureSource,
    cohort: Cohort,
    jobs: Sequence[ProbeJob],
    *,
    seed: int = 0,
    patches: int = 28,
    predictions: Path | None = None,
) -> list[StudyRow]:
    """One row per job name: Dice of its tested cases on the model's grid.

    Args:
        source: where descriptors come from.
        cohort: the cases.
        jobs: the probes to train and test.
        seed: of patches and weights.
        patches: number of patches of each case to train on.
        predictions: folder for the out-of-fold probabilities of the jobs named "nonlinear".
    """
    cases, classes = cohort.cases, len(cohort.organs) + 1
    needed = sorted({i for job in jobs for i in (*job.train, *job.test)})
    tables = {
        i: (
            training_table(cases[i], source, classes=classes, patches=patches, seed=seed + i),
            whole_scan_table(cases[i], source),
        )
        for i in tqdm(needed, desc="features", leave=False)
    }
    rows = {job.name: StudyRow(job.name, dice={}) for job in jobs}
    for job in tqdm(jobs, desc="probes", leave=False):
        training = [tables[i][0] for i in job.train]
        probe = train_pointwise(training, head=job.head, channels=source.channels, classes=classes, seed=seed)
        for i in job.test:
            _record(rows[job.name], cases[i], score_pointwise(tables[i][1], probe, classes), cohort.organs)
            if predictions is not None and job.name == "nonlinear":
                write_presegmentations(predictions, [cases[i]], [predict_pointwise(cases[i], source, probe, classes)])
    return list(rows.values())


def _record(row: StudyRow, case: Case, scores: NDArray[np.float64], organs: Sequence[str]) -> None:
    assert row.dice is not None
    row.dice[case.name] = organ_table(scores, organs)
