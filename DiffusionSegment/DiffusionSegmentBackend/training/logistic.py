"""Logistic regression with a ridge and weighted examples (Platt 1999, with features instead of a score)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_RIDGE = 1.0
_ITERATIONS = 50


def fit_logistic(
    features: NDArray[np.floating], targets: NDArray[np.floating], weights: NDArray[np.floating] | None = None
) -> tuple[float, NDArray[np.float64]]:
    """Intercept and weights (f,) of P(target) from features (n, f), maximum a posteriori by Newton's method.

    The ridge acts on standardised weights, not on the intercept.

    Args:
        features: (n, f).
        targets: (n,), 0 or 1.
        weights: of the examples (n,), 1 for each by default.
    """
    importance = np.ones(len(targets)) if weights is None else np.asarray(weights, np.float64)
    mean, scale = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64) + 1e-6
    x = np.column_stack([np.ones(len(targets)), (features - mean) / scale])
    ridge = np.full(x.shape[1], _RIDGE)
    ridge[0] = 1e-3
    w = np.zeros(x.shape[1])
    for _ in range(_ITERATIONS):
        p = 1 / (1 + np.exp(-np.clip(x @ w, -30, 30)))
        hessian = (x * (importance * p * (1 - p))[:, None]).T @ x + np.diag(ridge)
        step = np.linalg.solve(hessian, x.T @ (importance * (p - targets)) + ridge * w)
        w -= step
        if np.abs(step).max() < 1e-9:
            break
    slopes: NDArray[np.float64] = w[1:] / scale
    return float(w[0] - slopes @ mean), slopes
