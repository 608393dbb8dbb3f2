"""Calibration of confidence and uncertainty: calibration error, proper scores and the ranking of errors.

Voxel lists are (classes, N) and (N,); volumes are (classes, z, y, x) and (z, y, x). Probabilities lie in 0..1 and sum
to 1 over the classes. A measure over no voxels is NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.optimize import minimize_scalar
from scipy.stats import spearmanr

SMALLEST_PROBABILITY = 1e-6
TEMPERATURE_RANGE = (0.2, 5.0)


def boundary_band(
    labels: NDArray[np.integer], spacing: tuple[float, float, float], *, width_mm: float = 5.0
) -> NDArray[np.bool_]:
    """Voxels of `labels` (z, y, x) at most `width_mm` from a boundary between two labels; `spacing` (z, y, x) in mm.

    The distance is Euclidean, to the centre of the nearest voxel that shares a face with another label: half a voxel
    less than to the face itself. A map of one label has no band.
    """
    at_boundary = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        ahead = np.moveaxis(labels, axis, 0)
        boundary = np.moveaxis(at_boundary, axis, 0)
        differs = ahead[1:] != ahead[:-1]
        boundary[1:] |= differs
        boundary[:-1] |= differs
    if not at_boundary.any():
        return at_boundary
    # The band lies in this box; restricting the distance transform to it saves time.
    box = []
    for axis, step in enumerate(spacing):
        others = tuple(a for a in range(labels.ndim) if a != axis)
        shown = np.flatnonzero(at_boundary.any(axis=others))
        margin = int(np.ceil(width_mm / step))
        box.append(slice(max(0, int(shown[0]) - margin), int(shown[-1]) + margin + 1))
    band = np.zeros(labels.shape, bool)
    band[tuple(box)] = distance_transform_edt(~at_boundary[tuple(box)], sampling=spacing) <= width_mm
    return band


def expected_calibration_error(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], *, bins: int = 15
) -> float:
    """Mean gap (0..1) between confidence and accuracy of the most probable label.

    Guo et al. 2017, "On calibration of modern neural networks", eq. 3: `bins` equal intervals of confidence (0..1),
    each closed above, weighted by the voxels in them. Both arrays cover the same voxels.
    """
    if confidence.size == 0:
        return float("nan")
    values = confidence.ravel().astype(np.float64)
    bin_of = np.clip(np.ceil(values * bins).astype(np.intp) - 1, 0, bins - 1)
    # Voxels in the bin times |accuracy - confidence| is a difference of sums, which is 0 for an empty bin.
    gaps = np.bincount(bin_of, correct.ravel().astype(np.float64) - values, minlength=bins)
    return float(np.abs(gaps).sum() / values.size)


def band_ece(
    probabilities: NDArray[np.floating],
    labels: NDArray[np.integer],
    spacing: tuple[float, float, float],
    *,
    width_mm: float = 5.0,
    bins: int = 15,
) -> float:
    """Expected calibration error in the boundary band of the true `labels` (z, y, x); `spacing` (z, y, x) in mm.

    Away from boundaries nearly all voxels are correct and confident, which would hide a gap in an average over all.
    """
    band = boundary_band(labels, spacing, width_mm=width_mm)
    chosen = probabilities[:, band]
    correct = chosen.argmax(axis=0) == labels[band]
    return expected_calibration_error(chosen.max(axis=0), correct, bins=bins)


def brier(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Brier score, 0 (best) to 2: the mean over voxels of the squared errors summed over classes.

    Brier 1950, "Verification of forecasts expressed in terms of probability".
    """
    if labels.size == 0:
        return float("nan")
    squares = np.einsum("cn,cn->n", probabilities, probabilities, dtype=np.float64)
    # |p - e|^2 = |p|^2 - 2 p[label] + 1 needs no one-hot copy of the labels.
    return float(np.mean(squares - 2 * _of_label(probabilities, labels) + 1))


def negative_log_likelihood(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Mean of -ln of the probability of the true label, 0 (best) to 13.8: probabilities are clipped at 1e-6.

    Guo et al. 2017, section 2, divided by the number of voxels.
    """
    if labels.size == 0:
        return float("nan")
    return float(-np.log(np.maximum(_of_label(probabilities, labels), SMALLEST_PROBABILITY)).mean())


def area_under_risk_coverage(confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> float:
    """Error rate (0..1, lower is better) among the k most confident of N voxels, averaged over k = 1..N.

    AURC of Geifman and El-Yaniv 2017, "Selective classification for deep neural networks". Only the order of
    `confidence` matters; it may be a negated uncertainty.
    """
    if confidence.size == 0:
        return float("nan")
    _, group_of, sizes = np.unique(-confidence.ravel(), return_inverse=True, return_counts=True)
    wrong = np.bincount(group_of.ravel(), ~correct.ravel().astype(bool), minlength=len(sizes))
    # Saturated softmax ties many voxels: each has the error rate of its tie, the mean over all orders.
    errors = np.cumsum(np.repeat(wrong / sizes, sizes))
    return float(np.mean(errors / np.arange(1, len(errors) + 1)))


def fit_temperature(
    logits: NDArray[np.floating], labels: NDArray[np.integer], *, weights: NDArray[np.floating] | None = None
) -> float:
    """Temperature in 0.2..5 that maximises the likelihood of `labels` under softmax(logits / temperature).

    Guo et al. 2017, section 4.2. `logits` (classes, N) may be log-probabilities; `weights` (N,) are not negative.
    Computed on a copy in float64, for which a million voxels suffice.
    """
    if labels.size == 0:
        raise ValueError("A temperature cannot be fitted to no voxels.")
    # Subtracting the largest logit prevents overflow of exp at low temperatures and changes no probability.
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=0)
    of_label = _of_label(shifted, labels)

    def loss(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        nll = np.log(np.exp(shifted * inverse).sum(axis=0)) - of_label * inverse
        return float(np.average(nll, weights=weights))

    low, high = np.log(TEMPERATURE_RANGE)
    optimum = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(optimum.x))


def tempered(probabilities: NDArray[np.floating], temperature: float) -> NDArray[np.floating]:
    """Probabilities (classes, ...) raised to 1 / temperature and scaled to sum to 1, in their own precision.

    Equivalent to dividing the logits by the temperature (Guo et al. 2017, section 4.2): above 1 softens, below 1
    sharpens.
    """
    # Scaled to a maximum of 1, so that no power underflows in all classes.
    powers = (probabilities / probabilities.max(axis=0)) ** probabilities.dtype.type(1 / temperature)
    scaled: NDArray[np.floating] = powers / powers.sum(axis=0)
    return scaled


def rank_correlation(uncertainty: NDArray[np.floating], dice: NDArray[np.floating]) -> float:
    """Spearman's rank correlation (-1..1) of uncertainty and Dice, one pair per case; ideally -1.

    Pairs with NaN are omitted; NaN with fewer than three pairs or if either side is constant.
    """
    kept = ~(np.isnan(uncertainty) | np.isnan(dice))
    first, second = uncertainty[kept], dice[kept]
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(spearmanr(first, second).statistic)


def _of_label(values: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Value of each voxel's own label: (classes, N) and (N,) to (N,)."""
    chosen: NDArray[np.floating] = np.take_along_axis(values, labels[None].astype(np.intp), axis=0)[0]
    return chosen.astype(np.float64)
