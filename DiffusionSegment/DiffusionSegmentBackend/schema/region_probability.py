"""The calibrated probability of regions to review in model.json: coefficients of a logistic model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .dataclass_json import SchemaError

# Natural logarithm of the mL expected to be wrong; mean probability of its voxels to be wrong; natural logarithm of the
# mL expected to be wrong over the volume of the organ.
REGION_FEATURES = ("log_expected_wrong", "mean_error", "log_organ_share")


@dataclass(frozen=True, kw_only=True)
class LogisticModel:
    """P = 1 / (1 + exp(-(intercept + sum of weights * features))), the probability that a region holds a gross error.

    `weights` are by the name of the feature, one of REGION_FEATURES. Regions with a probability below `threshold` are
    not listed. Fitted on so many `regions` of so many `scans`, out of fold.
    """

    intercept: float
    weights: dict[str, float]
    threshold: float = 0.0
    scans: int = 0
    regions: int = 0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.weights) - set(REGION_FEATURES))
        if unknown:
            raise SchemaError(f"a region has no feature {unknown[0]!r:.40}")
        if not 0 <= self.threshold <= 1:
            raise SchemaError("threshold must be 0 to 1")

    def probability(self, features: Mapping[str, float]) -> float:
        """P, 0..1, of a region with these features."""
        logit = self.intercept + sum(weight * features[name] for name, weight in self.weights.items())
        return 1 / (1 + math.exp(-max(-500.0, min(500.0, logit))))


@dataclass(frozen=True, kw_only=True)
class RegionProbability:
    """The models for regions of a model's `own` results and of `reviewed` segmentations; None where not fitted."""

    own: LogisticModel | None = None
    reviewed: LogisticModel | None = None
