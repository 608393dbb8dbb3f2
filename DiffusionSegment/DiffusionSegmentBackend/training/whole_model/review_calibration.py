"""Margins of organs, intervals of volumes and probability of regions to review, from out-of-fold predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...schema import dataclass_json
from ...schema.region_probability import RegionProbability
from ..organ_margins import organ_margins
from ..region_calibration import (
    LabelledPrediction,
    RegionExample,
    calibrate_regions,
    own_examples,
    reviewed_examples,
)
from ..volume_calibration import TailCalibration, conformal_tail, containing_tail
from .anatomy_limits import tempered
from .fold_networks import held_out_names, read_prediction
from .model_run import ModelRun
from .out_of_fold import OutOfFold


def label_margins(run: ModelRun) -> list[dict[str, Any]]:
    """The entries of `labels` in model.json with the margins of the organs that enough held-out cases show."""
    plain = [{k: v for k, v in label.items() if k != "margin"} for label in run.folder.description.raw["labels"]]
    stored = [read_prediction(run, name).dilations_mm for name in held_out_names(run)]
    dilations = [mm for mm in stored if mm is not None]
    if not dilations:
        return plain
    margins = organ_margins(np.stack(dilations))
    return [
        label if margin is None else {**label, "margin": dataclass_json.to_json(margin)}
        for label, margin in zip(plain, margins, strict=True)
    ]


def volume_tail(predictions: Sequence[OutOfFold], *, temperature: float) -> TailCalibration | None:
    """The tail of the intervals of volumes, from predictions at the temperature of the model on the trunk's grid.

    None if the held-out cases show too few organs.
    """
    tails = []
    for stored in predictions:
        if stored.truth is not None:
            probabilities = tempered(torch.from_numpy(stored.on_trunk).float(), temperature).numpy()
            counts = np.bincount(stored.truth.ravel(), minlength=len(probabilities))
            tails += [containing_tail(probabilities[value], counts[value]) for value in counts.nonzero()[0] if value]
    return conformal_tail(tails)


def region_probability(run: ModelRun, *, temperature: float) -> RegionProbability | None:
    """The calibrated probability of regions to review, from predictions at the temperature of the model.

    The regions are those on the grid of the trunk. None if the held-out cases are too few.
    """
    own: list[RegionExample] = []
    reviewed: list[RegionExample] = []
    description = run.folder.description
    x, y, z = description.trunk_spacing_mm
    for number, name in enumerate(held_out_names(run)):
        stored = read_prediction(run, name)
        if stored.truth is None:
            continue
        prediction = LabelledPrediction(
            name=name,
            probabilities=tempered(torch.from_numpy(stored.on_trunk).float(), temperature).numpy(),
            truth=stored.truth,
            spacing=(z, y, x),
        )
        run.bar.note(f"regions of {name}")
        own += own_examples(prediction)
        reviewed += reviewed_examples(prediction, description, seed=run.options.seed + number)
    return calibrate_regions(own, reviewed)
