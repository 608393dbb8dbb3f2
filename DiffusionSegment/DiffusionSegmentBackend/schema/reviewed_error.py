"""The calibrated probability that voxels of a reviewed segmentation are wrong, in model.json: a logistic model."""

from __future__ import annotations

from dataclasses import dataclass

from .dataclass_json import SchemaError

# Logit of 1 - p(given label) of the model at a voxel, and of its mean under Gaussians with a standard deviation of 3, 6
# and 12 mm; natural logarithm of its sum over the scan, divided by that of 1 - p of the model's own label.
REVIEWED_ERROR_FEATURES = ("error", "error_3mm", "error_6mm", "error_12mm", "disagreement")


@dataclass(frozen=True, kw_only=True)
class ReviewedErrorModel:
    """P = 1 / (1 + exp(-(intercept + sum of weights * features))), the probability that a given label is wrong.

    `weights` are by the name of the feature, one of REVIEWED_ERROR_FEATURES. Fitted on label maps of so many `scans`.
    """

    intercept: float
    weights: dict[str, float]
    scans: int = 0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.weights) - set(REVIEWED_ERROR_FEATURES))
        if unknown:
            raise SchemaError(f"a reviewed voxel has no feature {unknown[0]!r:.40}")
