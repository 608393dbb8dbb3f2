"""Limits of the anatomy check in model.json, by what fold networks segment in the cases that they never saw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ...models.manifest import ModelDescription
from ...pipeline.checks import OrganMeasures, organ_measures
from .out_of_fold import OutOfFold

_MIN_ORGAN_SHARE = 0.1
_LESS_CONFIDENCE = 0.2
_MORE_LAYOUT = 1.5


def measures_of(prediction: OutOfFold, description: ModelDescription, *, temperature: float) -> OrganMeasures:
    """What a fold network segmented in its held-out case, its probabilities as sure as the calibrated model's."""
    on_trunk = replace(description, spacing_mm=description.trunk_spacing_mm)
    return organ_measures(tempered(torch.from_numpy(prediction.on_trunk).float(), temperature), on_trunk)


def tempered(probabilities: Tensor, temperature: float) -> Tensor:
    """Probabilities (classes, ...) as logits divided by a temperature would give them."""
    return (probabilities.clamp(min=1e-6).log() / temperature).softmax(dim=0)


def anatomy_limits(measures: Sequence[OrganMeasures]) -> dict[str, float]:
    """Limits as model.json has them, of the measures of all held-out cases.

    Usual is what they show at least or at most. A scan is refused with less than a tenth of their smallest volume of
    organs, beyond one and a half times their largest distance of layout, or, where there is no layout, with a
    confidence of 0.2 below the usual.
    """
    confidence = min(one.confidence for one in measures)
    limits = {
        "least_organ_ml": round(_MIN_ORGAN_SHARE * min(one.organ_ml for one in measures), 3),
        "usual_confidence": math.floor(100 * confidence) / 100,
        "least_confidence": max(0.0, math.floor(100 * (confidence - _LESS_CONFIDENCE)) / 100),
    }
    layouts = [one.layout_mm for one in measures if one.layout_mm is not None]
    if layouts:
        usual = math.ceil(max(layouts))
        limits |= {"usual_layout_mm": float(usual), "max_layout_mm": float(math.ceil(_MORE_LAYOUT * usual))}
    return limits
