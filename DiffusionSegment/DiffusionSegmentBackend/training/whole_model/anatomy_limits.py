"""Limits of the anatomy check in model.json, from out-of-fold segmentations."""

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
_CONFIDENCE_MARGIN = 0.2
_LAYOUT_FACTOR = 1.5


def measures_of(prediction: OutOfFold, description: ModelDescription, *, temperature: float) -> OrganMeasures:
    """Measures of an out-of-fold segmentation, with the probabilities at the temperature of the model."""
    on_trunk = replace(description, spacing_mm=description.trunk_spacing_mm)
    return organ_measures(tempered(torch.from_numpy(prediction.on_trunk).float(), temperature), on_trunk)


def tempered(probabilities: Tensor, temperature: float) -> Tensor:
    """Apply a temperature to probabilities (classes, ...)."""
    return (probabilities.clamp(min=1e-6).log() / temperature).softmax(dim=0)


def anatomy_limits(measures: Sequence[OrganMeasures]) -> dict[str, float]:
    """Limits for model.json from the measures of all held-out cases.

    The usual values are the lowest confidence and the largest layout distance of these cases. A scan is refused below a
    tenth of their smallest organ volume, above 1.5 times their largest layout distance, or, without a layout, at a
    confidence of 0.2 below the usual one.
    """
    confidence = min(one.confidence for one in measures)
    limits = {
        "min_organ_ml": round(_MIN_ORGAN_SHARE * min(one.organ_ml for one in measures), 3),
        "usual_confidence": math.floor(100 * confidence) / 100,
        "min_confidence": max(0.0, math.floor(100 * (confidence - _CONFIDENCE_MARGIN)) / 100),
    }
    layouts = [one.layout_mm for one in measures if one.layout_mm is not None]
    if layouts:
        usual = math.ceil(max(layouts))
        limits |= {"usual_layout_mm": float(usual), "max_layout_mm": float(math.ceil(_LAYOUT_FACTOR * usual))}
    return limits
