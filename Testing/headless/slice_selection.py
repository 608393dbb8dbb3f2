"""Which slices of a segmentation are displayed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def selectSlices(labels: NDArray[Any]) -> tuple[int, int, int]:
    """The voxel (k, j, i) of the slices to show: along each axis the one with the most labels, then voxels.

    Args:
        labels: label map (k, j, i), 0 for the background; without any label the middle of the volume is selected.
    """
    if not labels.any():
        k, j, i = (n // 2 for n in labels.shape)
        return k, j, i
    best = []
    for axis in range(3):
        rows = np.moveaxis(labels, axis, 0).reshape(labels.shape[axis], -1)
        scores = [len(np.unique(row)) + np.count_nonzero(row) / row.size for row in rows]
        best.append(int(np.argmax(scores)))
    return best[0], best[1], best[2]
