"""The stages of one-command training. Each uses the results of earlier ones in the model folder, returns a record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from ...datasets.labelled_cases import Case
from ...datasets.scans import read_cases
from ...metrics.calibration import fit_temperature
from ...models.model import save_network
from ...networks.segmenter import Segmenter
from ...networks.temperature import set_temperature, temperature
from ...schema import dataclass_json
from ..bodypart import body_frame, framed_scans, free_scans, train_bodypart
from ..organ_statistics import organ_statistics
from ..segmenter import SegmenterRecipe
from ..session import store, store_body_range
from .anatomy_limits import anatomy_limits, measures_of
from .fold_networks import held_out_names, read_prediction, train_folds
from .model_card import write_card
from .model_folder import ModelFolder
from .model_run import ModelRun
from .review_calibration import label_margins, region_probability, volume_tail
from .student import train_student

# Entries of a label in model.json that are measured on the training cases.
_MEASURED = ("body_mm", "usual_ml", "one_piece", "margin")


def bodypart(run: ModelRun) -> dict[str, Any]:
    """Train the body-part regressor with organ positions and, on all scans, with distances within a scan."""
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
    """Store position, volumes and pieces of the organs in model.json; too small for the trunk, they lack a position."""
    frame = body_frame(cases, folder.description.labels)
    positions = [{"body_mm": [round(float(mm), 1) for mm in mean]} if np.isfinite(mean).all() else {} for mean in frame]
    plain = [{k: v for k, v in label.items() if k not in _MEASURED} for label in folder.description.raw["labels"]]
    statistics = organ_statistics(cases, [label["value"] for label in plain])
    usual = [s.entries() if (s := statistics.get(label["value"])) is not None else {} for label in plain]
    labels = [{**label, **at, **entries} for label, at, entries in zip(plain, positions, usual, strict=True)]
    folder.change(labels=labels)


def trunk(run: ModelRun) -> dict[str, Any]:
    """Train the network at the spacing of the trunk: segmentation of labelled scans, denoising of all."""
    _trunk(run)
    return {"minutes": run.plan.trunk}


def _trunk(run: ModelRun) -> Segmenter:
    """The trained trunk, loaded from its checkpoint if its minutes are used up."""
    return run.training.trunk(
        run.sets(),
        minutes=run.plan.trunk,
        folder=run.checkpoints("trunk"),
        report=run.bar.report("trunk", run.plan.trunk, done=run.plan.reserved["trunk"]),
        seed=run.options.seed,
    )


def segmenter(run: ModelRun) -> dict[str, Any]:
    """Train the network on the model's grid, initialised from the trunk, and store it in the model."""
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
    """Fit the temperature, stored in the network, and the tail of volume intervals on out-of-fold predictions."""
    predictions = [read_prediction(run, name) for name in held_out_names(run)]
    logits = np.concatenate([prediction.log_probabilities for prediction in predictions], axis=1)
    value = fit_temperature(logits, np.concatenate([prediction.labels for prediction in predictions]).astype(np.int64))
    volumes = volume_tail(predictions, temperature=value)
    if volumes is not None:
        run.folder.change(volume_tail=volumes.tail)
    network = run.load_segmenter()
    set_temperature(network, value)
    save_network(run.folder.path, "segmenter", network, architecture=network.architecture)
    return {"temperature": round(value, 4), "cases": len(predictions)}


def card(run: ModelRun) -> dict[str, Any]:
    """Write what out-of-fold predictions show to model.json and MODEL_CARD.md.

    These are Dice, the limits of the anatomy check, the margins of organs and the probability of regions to review.
    """
    description = run.folder.description
    value = temperature(run.load_segmenter())
    dice, measures = {}, []
    for name in held_out_names(run):
        prediction = read_prediction(run, name)
        dice[name] = prediction.dice
        measures.append(measures_of(prediction, description, temperature=value))
    limits = anatomy_limits(measures)
    probability = region_probability(run, temperature=value)
    run.folder.change(
        anatomy={**description.raw["anatomy"], **limits},
        labels=label_margins(run),
        region_probability=dataclass_json.to_json(probability),
    )
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
