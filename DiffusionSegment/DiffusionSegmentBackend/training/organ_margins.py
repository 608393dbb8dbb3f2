"""Conformal margins of organs from out-of-fold segmentations.

Mossina and Friedrich, "Conformal prediction for image segmentation using morphological prediction sets"
(arXiv 2503.05618): the nonconformity of a scan is the smallest dilation of the predicted mask that contains a share of
the true voxels, and the margin is the ceil((n + 1)(1 - alpha))-th smallest of n scans. A new scan, exchangeable with
them, is contained with a probability of at least 1 - alpha. An organ whose predicted and true masks share no voxel is
missed: such scans are counted, and the margin holds for the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..imaging.balls import Spacing
from ..schema.organ_margin import OrganMargin

CONTAINED = 0.99
COVERAGE = 0.9


def containing_dilations_mm(
    predicted: NDArray[np.uint8], truth: NDArray[np.uint8], *, classes: int, spacing: Spacing
) -> NDArray[np.float64]:
    """For each organ the smallest dilation of its predicted mask that contains 99 % of its true voxels.

    Args:
        predicted: label map (z, y, x).
        truth: label map (z, y, x).
        classes: number of classes, background included.
        spacing: mm along z, y, x.

    Returns:
        (classes - 1,) mm: NaN for an organ that the scan does not show, infinite for a missed one.
    """
    result = np.full(classes - 1, np.nan)
    for value, box in enumerate(ndimage.find_objects(truth, max_label=classes - 1), start=1):
        if box is not None:
            result[value - 1] = _dilation_mm(predicted == value, truth == value, box, spacing)
    return result


def _dilation_mm(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], box: tuple[slice, ...], spacing: Spacing
) -> float:
    if not (predicted[box] & truth[box]).any():
        return math.inf
    missed = truth[box] & ~predicted[box]
    # Of n true voxels, so many may lie outside.
    outside = math.floor((1 - CONTAINED) * np.count_nonzero(truth[box]) + 1e-9)
    if np.count_nonzero(missed) <= outside:
        return 0.0
    # The nearest predicted voxel may lie outside the box of the truth.
    around = ndimage.find_objects((predicted | truth).astype(np.uint8))[0]
    distance = ndimage.distance_transform_edt(~predicted[around], sampling=spacing)
    distances = np.sort(distance[truth[around]])
    return float(distances[len(distances) - 1 - outside])


def conformal_margin(dilations_mm: Sequence[float], *, coverage: float = COVERAGE) -> OrganMargin | None:
    """The margin of an organ from the dilations of all scans that show it; None if they are too few for the coverage.

    `dilations_mm` are infinite for missed organs; at least coverage / (1 - coverage) finite ones are needed, nine for
    90 %.
    """
    finite = sorted(mm for mm in dilations_mm if math.isfinite(mm))
    rank = math.ceil((len(finite) + 1) * coverage - 1e-9)
    if rank > len(finite):
        return None
    mm = math.ceil(10 * finite[rank - 1] - 1e-9) / 10
    missed = len(dilations_mm) - len(finite)
    return OrganMargin(mm=mm, contained=CONTAINED, coverage=coverage, scans=len(finite), missed=missed)


def organ_margins(dilations_mm: NDArray[np.floating], *, coverage: float = COVERAGE) -> list[OrganMargin | None]:
    """The margin of each organ from the dilations (scans, organs) of `containing_dilations_mm`."""
    return [
        conformal_margin([mm for mm in of_organ if not np.isnan(mm)], coverage=coverage) for of_organ in dilations_mm.T
    ]
