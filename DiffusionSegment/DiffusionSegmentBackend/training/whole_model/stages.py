"""The stages of one-command training. Each reads what earlier ones left in the model's folder and leaves a record."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from ...evaluation.calibration import fit_temperature
from ...networks.bodypart import BodyPartRegressor
from ...networks.segmenter import Segmenter
from ...networks.temperature import set_temperature
from ...pipeline.model import load_network, save_network
from ..bodypart import body_frame, framed_scans, free_scans, train_bodypart
from ..case_folds import CaseFold
from ..data import Case
from ..segmenter import SegmenterRecipe
from ..session import store, store_body_range
from .model_card import write_card
from .model_folder import ModelFolder
from .networks import NetworkTraining
from .options import ModelTrainingOptions
from .out_of_fold import OutOfFold, predict_out_of_fold
from .scans import ScanFiles, Volumes, read_cases, read_volumes
from .stage_bar import StageBar
from .time_plan import TimePlan


@dataclass
class ModelRun:
    """What the stages share. Scans are read when the first stage needs them."""

    folder: ModelFolder
    options: ModelTrainingOptions
    training: NetworkTraining
    plan: TimePlan
    scans: ScanFiles
    bar: StageBar
    _volumes: Volumes | None = field(default=None, repr=False)

    @property
    def regressor(self) -> BodyPartRegressor:
        """The trained body-part network.

        Raises:
            DiffusionSegmentError: WEIGHTS_MISSING before its stage.
        """
        return cast(BodyPartRegressor, load_network(self.folder.description, "bodypart"))

    @property
    def volumes(self) -> Volumes:
        """All scans on the model's grid."""
        if self._volumes is None:
            self._volumes = read_volumes(self.scans, self.folder.description, self.regressor, self.bar.note)
        return self._volumes

    def checkpoints(self, *parts: str) -> Path:
        """Where a network's checkpoints lie."""
        return self.folder.training.joinpath(*parts)

    def sets(self, *, without: tuple[str, ...] = ()) -> list[Any]:
        """What networks train on."""
        return self.volumes.sets(without=without, denoising=self.options.denoising_share > 0)


def bodypart(run: ModelRun) -> dict[str, Any]:
    """Body coordinates from the organs' places and, on all scans, from distances within a scan."""
    labelled, unlabelled = read_cases(run.scans, run.folder.description, run.bar.note)
    _store_body_frame(run.folder, labelled)
    groups = [framed_scans(labelled, run.folder.description.labels)]
    groups += [free_scans(unlabelled)] if unlabelled else []
    budget, folder = run.training.bodypart_budget(run.plan.bodypart), run.checkpoints("bodypart")
    report = run.bar.report("bodypart", run.plan.bodypart)
    network = train_bodypart(groups, budget=budget, folder=folder, resume=True, report=report)
    store(
        run.folder.path,
        "bodypart",
        network,
        architecture={},
        budget=budget,
        cases=run.scans.names,
        options={},
        checkpoints=folder,
    )
    store_body_range(run.folder.path, labelled, network)
    return {"scans": len(run.scans.names)}


def _store_body_frame(folder: ModelFolder, cases: list[Case]) -> None:
    """Write the organs' usual places into model.json; an organ too small for the trunk's spacing has none."""
    frame = body_frame(cases, folder.description.labels)
    known = [{"body_mm": [round(float(mm), 1) for mm in place]} if np.isfinite(place).all() else {} for place in frame]
    labels = [{**label, **place} for label, place in zip(folder.description.raw["labels"], known, strict=True)]
    folder.change(labels=labels)


def trunk(run: ModelRun) -> dict[str, Any]:
    """The network at the trunk's spacing: segmentation on labelled scans and denoising on all."""
    run.training.trunk(
        run.sets(),
        minutes=run.plan.trunk,
        folder=run.checkpoints("trunk"),
        report=run.bar.report("trunk", run.plan.trunk),
        seed=run.options.seed,
    )
    return {"minutes": run.plan.trunk}


def segmenter(run: ModelRun) -> dict[str, Any]:
    """The same network inside stem and fine path, on the model's grid; its weights go into the model."""
    run.folder.needed_record("trunk")
    sets = run.sets()
    start = run.training.trunk(
        sets,
        minutes=run.plan.trunk,
        folder=run.checkpoints("trunk"),
        report=run.bar.report("segmenter", run.plan.trunk),
        seed=run.options.seed,
    )
    folder = run.checkpoints("segmenter")
    network = run.training.segmenter(
        start,
        sets,
        minutes=run.plan.segmenter,
        folder=folder,
        report=run.bar.report("segmenter", run.plan.segmenter),
        seed=run.options.seed,
    )
    store(
        run.folder.path,
        "segmenter",
        network,
        architecture=network.architecture,
        budget=run.training.segmenter_budget(run.plan.segmenter, seed=run.options.seed),
        cases=run.scans.names,
        options=_recipe_json(run.training.recipe()),
        checkpoints=folder,
    )
    return {"minutes": run.plan.segmenter}


def _recipe_json(recipe: SegmenterRecipe) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(recipe).items()}


def folds(run: ModelRun) -> dict[str, Any]:
    """Networks without their share of the cases, and what they say of those."""
    chosen = run.volumes.folds(run.options.folds)
    for fold in chosen:
        missing = [name for name in fold.held_out if not _prediction_file(run, name).is_file()]
        if missing:
            network = _fold_network(run, fold)
            for name in missing:
                run.bar.note(f"scoring {name}")
                _write_prediction(run, name, _predict(run, network, name))
    return {"folds": {str(fold.number): list(fold.held_out) for fold in chosen}}


def _fold_network(run: ModelRun, fold: CaseFold) -> Segmenter:
    """Seeds differ between the folds, so that their networks differ in more than a few cases."""
    plan, sets, seed = run.plan, run.sets(without=fold.held_out), run.options.seed + fold.number
    place = run.checkpoints("folds", str(fold.number))
    done = (fold.number - 1) * (plan.fold_trunk + plan.fold_segmenter)
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


def _predict(run: ModelRun, network: Segmenter, name: str) -> OutOfFold:
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


def _read_prediction(run: ModelRun, name: str) -> OutOfFold:
    with np.load(_prediction_file(run, name), allow_pickle=False) as stored:
        return OutOfFold(**{key: stored[key] for key in stored.files})


def _held_out(run: ModelRun) -> list[str]:
    """Names of the cases with an out-of-fold prediction.

    Raises:
        DiffusionSegmentError: see `missing_stage`.
    """
    record = run.folder.needed_record("folds")
    return [name for names in record["folds"].values() for name in names]


def calibration(run: ModelRun) -> dict[str, Any]:
    """The temperature that suits out-of-fold predictions goes into the network."""
    found = [_read_prediction(run, name) for name in _held_out(run)]
    logits = np.concatenate([one.log_probabilities for one in found], axis=1)
    value = fit_temperature(logits, np.concatenate([one.labels for one in found]).astype(np.int64))
    network = load_network(run.folder.description, "segmenter")
    set_temperature(network, value)
    save_network(run.folder.path, "segmenter", network, architecture=cast(Segmenter, network).architecture)
    return {"temperature": round(value, 4), "cases": len(found)}


def card(run: ModelRun) -> dict[str, Any]:
    """What was measured out of fold, into model.json and MODEL_CARD.md."""
    dice = {name: _read_prediction(run, name).dice for name in _held_out(run)}
    write_card(run.folder, run.options, run.plan, run.scans, dice)
    return {"cases": len(dice)}


STAGE_FUNCTIONS: dict[str, Callable[[ModelRun], dict[str, Any]]] = {
    "bodypart": bodypart,
    "trunk": trunk,
    "segmenter": segmenter,
    "folds": folds,
    "calibration": calibration,
    "card": card,
}
