"""Margins of organs and probability of regions to review in model.json, from out-of-fold predictions."""

from __future__ import annotations

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
from .anatomy_limits import tempered
from .fold_networks import held_out_names, read_prediction
from .model_run import ModelRun


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
