"""The stages of one-command training. Each reads what earlier ones left in the model's folder and leaves a record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, cast

import numpy as np

from ...datasets.labelled_cases import Case
from ...datasets.scans import read_cases
from ...metrics.calibration import fit_temperature
from ...models.model import load_network, save_network
from ...networks.segmenter import Segmenter
from ...networks.temperature import set_temperature, temperature
from ..bodypart import body_frame, framed_scans, free_scans, train_bodypart
from ..segmenter import SegmenterRecipe
from ..session import store, store_body_range
from .anatomy_limits import anatomy_limits, measures_of
from .fold_networks import held_out_names, read_prediction, train_folds
from .model_card import write_card
from .model_folder import ModelFolder
from .model_run import ModelRun
from .student import train_student


def bodypart(run: ModelRun) -> dict[str, Any]:
    """Body coordinates from the organs' places and, on all scans, from distances within a scan."""
    labelled, unlabelled = read_cases(run.scans, run.folder.description, run.bar.note)
    _store_body_frame(run.folder, labelled)
    groups = [framed_scans(labelled, run.folder.description.labels)]
    groups += [free_scans(unlabelled)] if unlabelled else []
    budget, folder = run.training.bodypart_budget(run.plan.bodypart), run.checkpoints("bodypart")
    report = run.bar.report("bodypart", run.plan.bodypart, done=run.plan.reserved["bodypart"])
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
    plain = [{k: v for k, v in label.items() if k != "body_mm"} for label in folder.description.raw["labels"]]
    labels = [{**label, **place} for label, place in zip(plain, known, strict=True)]
    folder.change(labels=labels)


def trunk(run: ModelRun) -> dict[str, Any]:
    """The network at the trunk's spacing: segmentation on labelled scans and denoising on all."""
    _trunk(run)
    return {"minutes": run.plan.trunk}


def _trunk(run: ModelRun) -> Segmenter:
    """The trained trunk; one whose minutes are used up comes from its checkpoint."""
    return run.training.trunk(
        run.sets(),
        minutes=run.plan.trunk,
        folder=run.checkpoints("trunk"),
        report=run.bar.report("trunk", run.plan.trunk, done=run.plan.reserved["trunk"]),
        seed=run.options.seed,
    )


def segmenter(run: ModelRun) -> dict[str, Any]:
    """The same network inside stem and fine path, on the model's grid; its weights go into the model."""
    run.folder.needed_record("trunk")
    folder = run.checkpoints("segmenter")
    network = run.training.segmenter(
        _trunk(run),
        run.sets(),
        minutes=run.plan.segmenter,
        folder=folder,
        report=run.bar.report("segmenter", run.plan.segmenter),
        seed=run.options.seed,
    )
    budget = run.training.segmenter_budget(run.plan.segmenter, seed=run.options.seed)
    run.store_segmenter(network, budget, folder, **_recipe_json(run.training.recipe()))
    return {"minutes": run.plan.segmenter}


def _recipe_json(recipe: SegmenterRecipe) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(recipe).items()}


def calibration(run: ModelRun) -> dict[str, Any]:
    """The temperature that suits out-of-fold predictions goes into the network."""
    found = [read_prediction(run, name) for name in held_out_names(run)]
    logits = np.concatenate([one.log_probabilities for one in found], axis=1)
    value = fit_temperature(logits, np.concatenate([one.labels for one in found]).astype(np.int64))
    network = load_network(run.folder.description, "segmenter")
    set_temperature(network, value)
    save_network(run.folder.path, "segmenter", network, architecture=cast(Segmenter, network).architecture)
    return {"temperature": round(value, 4), "cases": len(found)}


def card(run: ModelRun) -> dict[str, Any]:
    """What was measured out of fold, and the limits that follow from it, into model.json and MODEL_CARD.md."""
    description = run.folder.description
    value = temperature(load_network(description, "segmenter"))
    dice, measures = {}, []
    for name in held_out_names(run):
        prediction = read_prediction(run, name)
        dice[name] = prediction.dice
        measures.append(measures_of(prediction, description, temperature=value))
    limits = anatomy_limits(measures)
    run.folder.change(anatomy={**description.raw["anatomy"], **limits})
    write_card(run.folder, run.options, run.plan, dice)
    return {"cases": len(dice), "anatomy": limits}


STAGE_FUNCTIONS: dict[str, Callable[[ModelRun], dict[str, Any]]] = {
    "bodypart": bodypart,
    "trunk": trunk,
    "segmenter": segmenter,
    "folds": train_folds,
    "student": train_student,
    "calibration": calibration,
    "card": card,
}
