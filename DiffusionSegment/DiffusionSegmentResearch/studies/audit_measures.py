"""How well a map of probable errors separates wrong from right voxels, and how many gross errors its regions hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from DiffusionSegmentBackend.imaging.balls import Spacing, opened
from DiffusionSegmentBackend.metrics.looks import MIN_GROSS_ERROR_ML, OPENING_MM, gross_errors
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import rankdata

NEAR_MM = 6.0
# SegQC's precision (Specktor-Fadida et al. 2024), at which recall is compared.
WANTED_PRECISION = 0.55
_THRESHOLDS = (0.01, 0.02, 0.03, *(round(0.05 * n, 2) for n in range(1, 20)))
_MIN_VOXELS = 20
# Without it, one region over all organs would hold every error.
_MIN_SHARE = 0.25


def auroc(scores: NDArray[np.float32], positive: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve by ranks; None with fewer than 20 voxels of either kind."""
    count = int(positive.sum())
    if min(count, positive.size - count) < _MIN_VOXELS:
        return None
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (positive.size - count)))


@dataclass(frozen=True)
class Detection:
    """Regions, those of them that are right, gross errors, and those of them that right regions hold."""

    regions: int = 0
    right: int = 0
    errors: int = 0
    found: int = 0

    def __add__(self, other: Detection) -> Detection:
        return Detection(
            self.regions + other.regions,
            self.right + other.right,
            self.errors + other.errors,
            self.found + other.found,
        )

    @property
    def precision(self) -> float:
        """Share of the regions that are right; 1 without a region."""
        return self.right / self.regions if self.regions else 1.0

    @property
    def recall(self) -> float:
        """Share of the gross errors that right regions hold; NaN without errors."""
        return self.found / self.errors if self.errors else float("nan")


def detections(
    wrong: NDArray[np.float32], labels: NDArray[np.uint8], truth: NDArray[np.uint8], spacing: Spacing
) -> tuple[Detection, ...]:
    """One for every threshold on the probability (z, y, x) that a voxel is wrong.

    A region is a connected piece above the threshold that is as thick and as large as a gross error. It is right if a
    quarter of its voxels are wrong, and an error is found if a quarter of it lies in right regions.
    """
    errors = gross_errors(labels, truth, spacing=spacing)
    return tuple(_detection(wrong > threshold, labels != truth, errors, spacing) for threshold in _THRESHOLDS)


def _detection(
    suspected: NDArray[np.bool_], wrong: NDArray[np.bool_], errors: NDArray[np.int32], spacing: Spacing
) -> Detection:
    pieces, count = ndimage.label(opened(suspected, radius_mm=OPENING_MM, spacing=spacing))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    large = sizes * float(np.prod(spacing)) / 1000.0 >= MIN_GROSS_ERROR_ML
    large[0] = False
    right = large & (np.bincount(pieces[wrong], minlength=count + 1) >= _MIN_SHARE * sizes)
    of_error = np.bincount(errors.ravel())
    seen = np.bincount(errors[right[pieces]], minlength=len(of_error))
    return Detection(
        regions=int(large.sum()),
        right=int(right.sum()),
        errors=len(of_error) - 1,
        found=int((seen[1:] >= _MIN_SHARE * of_error[1:]).sum()),
    )


def at_precision(cases: Sequence[Sequence[Detection]], wanted: float = WANTED_PRECISION) -> Detection:
    """The sum over cases, each at the threshold that the others choose."""
    total = Detection()
    for number, case in enumerate(cases):
        total += case[threshold_of([other for n, other in enumerate(cases) if n != number], wanted)]
    return total


def threshold_of(cases: Sequence[Sequence[Detection]], wanted: float = WANTED_PRECISION) -> int:
    """The number of the lowest threshold with at least this precision over all cases, else of the most precise."""
    sums = [sum(at_threshold, Detection()) for at_threshold in zip(*cases, strict=True)]
    reached = [number for number, one in enumerate(sums) if one.precision >= wanted]
    if reached:
        return reached[0]
    return max(range(len(sums)), key=lambda number: sums[number].precision, default=len(_THRESHOLDS) // 2)
