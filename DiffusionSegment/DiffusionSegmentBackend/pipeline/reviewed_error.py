"""Probability that voxels of a reviewed segmentation are wrong, calibrated on segmentations whose errors are known.

1 - p_model(given label) says how much the model disagrees. A model that is weaker than what it reviews disagrees with
it most where it is wrong itself: thinly, along surfaces, and as much as its own doubt lets expect. Real errors are
thick, and make the whole scan disagree more than that. A logistic model of these features tells them apart.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit, logit

from ..imaging.balls import Spacing
from ..schema.reviewed_error import ReviewedErrorModel

_SIGMAS_MM = {"error_3mm": 3.0, "error_6mm": 6.0, "error_12mm": 12.0}
_MIN_PROBABILITY = 1e-3
# Voxels that a model without any doubt is taken to be in doubt of.
_MIN_SUM = 1.0
# A missing organ multiplies the disagreement many times over, which must not make all other voxels wrong.
_MAX_DISAGREEMENT = 1.0


def reviewed_error_features(
    error: NDArray[np.float32], own_error: float, *, spacing: Spacing
) -> dict[str, NDArray[np.float32] | float]:
    """The features of `schema.reviewed_error.REVIEWED_ERROR_FEATURES`.

    Args:
        error: 1 - p_model(given label) (z, y, x), 0..1.
        own_error: sum over the same voxels of 1 - p_model of the model's own label.
        spacing: mm along z, y, x.
    """
    smoothed = {
        name: ndimage.gaussian_filter(error, [sigma / mm for mm in spacing]) for name, sigma in _SIGMAS_MM.items()
    }
    disagreement = math.log(max(float(error.sum(dtype=np.float64)), _MIN_SUM) / max(own_error, _MIN_SUM))
    return {
        "error": _logit(error),
        **{name: _logit(values) for name, values in smoothed.items()},
        "disagreement": min(max(disagreement, -_MAX_DISAGREEMENT), _MAX_DISAGREEMENT),
    }


def calibrated_error(
    error: NDArray[np.float32], own_error: float, model: ReviewedErrorModel, *, spacing: Spacing
) -> NDArray[np.float32]:
    """The probability (z, y, x), float32, that the given labels are wrong; 0 where `error` is. As the features."""
    features = reviewed_error_features(error, own_error, spacing=spacing)
    total = np.full(error.shape, model.intercept, np.float32)
    for name, weight in model.weights.items():
        total += np.float32(weight) * features[name]
    return np.where(error > 0, expit(total), np.float32(0))


def _logit(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = logit(probability.clip(_MIN_PROBABILITY, 1 - _MIN_PROBABILITY))
    return result
