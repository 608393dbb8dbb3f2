"""Networks for out-of-fold predictions, and the files of their predictions."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ...datasets.case_folds import CaseFold
from ...networks.segmenter import Segmenter
from .model_run import ModelRun
from .out_of_fold import OutOfFold, predict_out_of_fold


def train_folds(run: ModelRun) -> dict[str, Any]:
    """Stage `folds`: train a network per fold and predict its held-out cases."""
    folds = run.volumes.folds(run.options.folds)
    for fold in folds:
        missing = [name for name in fold.held_out if not _prediction_file(run, name).is_file()]
        if missing:
            network = fold_network(run, fold)
            for name in missing:
                run.bar.note(f"scoring {name}")
                write_prediction(run, name, predict(run, network, name))
    return {"folds": {str(fold.number): list(fold.held_out) for fold in folds}}


def fold_network(run: ModelRun, fold: CaseFold) -> Segmenter:
    """Train the network of a fold, with its own seed, or load it from its checkpoint."""
    plan, sets, seed = run.plan, run.sets(without=fold.held_out), run.options.seed + fold.number
    folder = run.checkpoints("folds", str(fold.number))
    done = (fold.number - 1) * (plan.fold_trunk + plan.fold_segmenter + plan.reserved["folds"] / plan.folds)
    start = run.training.trunk(
        sets,
        minutes=plan.fold_trunk,
        folder=folder / "trunk",
        report=run.bar.report("folds", plan.fold_trunk, done=done),
        seed=seed,
    )
    return run.training.segmenter(
        start,
        sets,
        minutes=plan.fold_segmenter,
        folder=folder / "segmenter",
        report=run.bar.report("folds", plan.fold_segmenter, done=done + plan.fold_trunk),
        seed=seed,
    )


def predict(run: ModelRun, network: Segmenter, name: str) -> OutOfFold:
    """The prediction of a network for the named case."""
    volumes, training = run.volumes, run.training
    return predict_out_of_fold(
        network,
        volumes.labelled[name],
        volumes.files[name],
        training.description,
        training.recipe(),
        device=training.device,
    )


def _prediction_file(run: ModelRun, name: str) -> Path:
    return run.folder.training / "out_of_fold" / f"{name}.npz"


def write_prediction(run: ModelRun, name: str, prediction: OutOfFold) -> None:
    """Write the file of a case atomically."""
    path = _prediction_file(run, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, **{key: array for key, array in asdict(prediction).items() if array is not None})
    os.replace(partial, path)


def read_prediction(run: ModelRun, name: str) -> OutOfFold:
    """Read the out-of-fold prediction of a case."""
    with np.load(_prediction_file(run, name), allow_pickle=False) as stored:
        return OutOfFold(**{key: stored[key] for key in stored.files})


def held_out_names(run: ModelRun) -> list[str]:
    """Names of the cases with an out-of-fold prediction.

    Raises:
        DiffusionSegmentError: WEIGHTS_MISSING before the stage `folds`.
    """
    record = run.folder.needed_record("folds")
    return [name for names in record["folds"].values() for name in names]
