"""Networks that were trained without some cases, and what they say of those; one file of predictions a case."""

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
    """Networks without their share of the cases, and what they say of those."""
    chosen = run.volumes.folds(run.options.folds)
    for fold in chosen:
        missing = [name for name in fold.held_out if not _prediction_file(run, name).is_file()]
        if missing:
            network = fold_network(run, fold)
            for name in missing:
                run.bar.note(f"scoring {name}")
                _write_prediction(run, name, predict(run, network, name))
    return {"folds": {str(fold.number): list(fold.held_out) for fold in chosen}}


def fold_network(run: ModelRun, fold: CaseFold) -> Segmenter:
    """Seeds differ between the folds, so that their networks differ in more than a few cases."""
    plan, sets, seed = run.plan, run.sets(without=fold.held_out), run.options.seed + fold.number
    place = run.checkpoints("folds", str(fold.number))
    done = (fold.number - 1) * (plan.fold_trunk + plan.fold_segmenter + plan.reserved["folds"] / plan.folds)
    start = run.training.trunk(
        sets,
        minutes=plan.fold_trunk,
        folder=place / "trunk",
        report=run.bar.report("folds", plan.fold_trunk, done=done),
        seed=seed,
    )
    return run.training.segmenter(
        start,
        sets,
        minutes=plan.fold_segmenter,
        folder=place / "segmenter",
        report=run.bar.report("folds", plan.fold_segmenter, done=done + plan.fold_trunk),
        seed=seed,
    )


def predict(run: ModelRun, network: Segmenter, name: str) -> OutOfFold:
    """What a network says of the case of that name."""
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


def _write_prediction(run: ModelRun, name: str, found: OutOfFold) -> None:
    """One file a case, moved into place when it is whole."""
    path = _prediction_file(run, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, **asdict(found))
    os.replace(partial, path)


def read_prediction(run: ModelRun, name: str) -> OutOfFold:
    """What the network of its fold said of a case."""
    with np.load(_prediction_file(run, name), allow_pickle=False) as stored:
        return OutOfFold(**{key: stored[key] for key in stored.files})


def held_out_names(run: ModelRun) -> list[str]:
    """Names of the cases with an out-of-fold prediction.

    Raises:
        DiffusionSegmentError: WEIGHTS_MISSING before the stage `folds`.
    """
    record = run.folder.needed_record("folds")
    return [name for names in record["folds"].values() for name in names]
