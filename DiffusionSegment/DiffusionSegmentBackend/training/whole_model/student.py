"""Stage `student`: continue training with pseudo-labels, if a trial on one fold shows an improvement."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...datasets.case_folds import CaseFold, is_gain
from ...datasets.scans import Volumes
from ...datasets.volumes import TrainingVolume
from ...networks.segmenter import Segmenter
from ..pseudo_labels import pseudo_labelled
from ..whole_scan import whole_scan_probabilities
from .fold_networks import fold_network, predict
from .model_run import ModelRun

# Fixed before the first trial.
MIN_GAIN = 0.003


@dataclass(frozen=True)
class Trial:
    """Mean Dice of each held-out case with and without pseudo-labels, after equal minutes from the same network."""

    cases: tuple[str, ...]
    with_labels: NDArray[np.float64]
    without: NDArray[np.float64]

    @property
    def helped(self) -> bool:
        """Whether the mean paired gain is at least 0.3 points and five of seven cases improve."""
        return is_gain(self.with_labels - self.without, min_mean=MIN_GAIN)

    def as_json(self) -> dict[str, Any]:
        """Entries of the record of the stage."""
        rows = zip(self.cases, self.with_labels, self.without, strict=True)
        table = {name: {"with": round(float(a), 4), "without": round(float(b), 4)} for name, a, b in rows}
        return {"kept": self.helped, "gain": round(float((self.with_labels - self.without).mean()), 4), "dice": table}


def train_student(run: ModelRun) -> dict[str, Any]:
    """Compare on the first fold; if it helps, continue with pseudo-labels of all fold networks."""
    if not run.options.pseudo_labels:
        return {"kept": False, "reason": "not asked for"}
    run.folder.needed_record("folds")
    run.folder.needed_record("segmenter")
    if not _partly_drawn(run):
        return {"kept": False, "reason": "every organ was drawn in every scan"}
    folds = run.volumes.folds(run.options.folds)
    trial = _trial(run, folds[0])
    if trial.helped:
        _continue_training(run, [fold_network(run, fold) for fold in folds])
    return trial.as_json()


def _partly_drawn(run: ModelRun) -> list[TrainingVolume]:
    """Scans without complete annotation."""
    volumes = [*run.volumes.labelled.values(), *run.volumes.unlabelled.values()]
    return [volume for volume in volumes if not bool(volume.drawn.all())]


def _trial(run: ModelRun, fold: CaseFold) -> Trial:
    """Compare both trainings; pseudo-labels are those of the fold's network, which has not seen the held-out cases."""
    start, minutes = fold_network(run, fold), run.plan.trial
    budget = run.training.student_budget(minutes, seed=run.options.seed)
    dice = {}
    for number, (name, volumes) in enumerate({"with": _labelled(run, [start]), "without": run.volumes}.items()):
        network = run.training.continued(
            start,
            volumes.sets(without=fold.held_out, denoising=run.options.denoising_share > 0),
            budget=budget,
            folder=run.checkpoints("student", name),
            report=run.bar.report("student", minutes, done=number * minutes),
        )
        dice[name] = np.array([np.nanmean(predict(run, network, case).dice) for case in fold.held_out])
    return Trial(fold.held_out, dice["with"], dice["without"])


def _continue_training(run: ModelRun, networks: list[Segmenter]) -> None:
    folder, minutes = run.checkpoints("student", "model"), run.plan.student
    budget = run.training.student_budget(minutes, seed=run.options.seed)
    network = run.training.continued(
        run.load_segmenter().requires_grad_(True),
        _labelled(run, networks).sets(denoising=run.options.denoising_share > 0),
        budget=budget,
        folder=folder,
        report=run.bar.report("student", minutes, done=2 * run.plan.trial),
    )
    run.store_segmenter(network, budget, folder, pseudo_labels=True)


def _labelled(run: ModelRun, networks: list[Segmenter]) -> Volumes:
    """The volumes with pseudo-labels for organs without annotation."""
    recipe, device = run.training.recipe(), run.training.device

    def labelled(volume: TrainingVolume) -> TrainingVolume:
        if bool(volume.drawn.all()):
            return volume
        run.bar.note(f"labelling {volume.name}")
        return pseudo_labelled(
            volume, [whole_scan_probabilities(network, volume, recipe, device=device) for network in networks]
        )

    return replace(
        run.volumes,
        labelled={name: labelled(volume) for name, volume in run.volumes.labelled.items()},
        unlabelled={name: labelled(volume) for name, volume in run.volumes.unlabelled.items()},
    )
