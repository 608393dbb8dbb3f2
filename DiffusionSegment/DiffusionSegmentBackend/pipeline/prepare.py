"""Preprocessing: resampling to the model's grid, and intensity windowing to -1..1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.volume import Grid, Volume, check_values
from ..models.manifest import ModelDescription

# Threshold of the body in an image in -1..1; above that between air and tissue, because of the noise around the body.
BODY_THRESHOLD = -0.9
_FLOAT32 = np.finfo(np.float32)


def network_input(
    volume: Volume, grid: Grid, description: ModelDescription, *, what: str = "The scan"
) -> NDArray[np.float32]:
    """A scan on the model's grid as the input of its networks: (z, y, x), -1..1; `what` names it in errors.

    Raises:
        DiffusionSegmentError: INPUT_VALUES for NaN or infinity, and as `window_of`.
    """
    check_values(volume.array, what=what)
    return windowed(grid.to_grid(volume.array), window_of(volume.array, description, what=what))


def window_of(array: NDArray[Any], description: ModelDescription, *, what: str = "The scan") -> tuple[float, float]:
    """The values of a scan (k, j, i) that are scaled to -1 and 1.

    Percentiles are taken over all voxels before resampling, so that the input does not depend on gain and offset of the
    scan (MR has no unit).

    Raises:
        DiffusionSegmentError: INPUT_VALUES where both percentiles of the scan are the same value.
    """
    if description.window_unit != "percentile":
        return description.window
    low, high = (float(value) for value in np.percentile(array, description.window))
    # The grid is float32: smaller differences are lost.
    min_range = max(_FLOAT32.tiny, _FLOAT32.eps * max(abs(low), abs(high)))
    if not high - low > min_range:
        first, last = description.window
        raise DiffusionSegmentError(
            ErrorCode.INPUT_VALUES,
            f"{what} shows nothing: from percentile {first:g} to {last:g} all voxels are {low:g}.",
            hint="Choose the scan itself, not a mask or an empty volume.",
        )
    return low, high


def windowed(values: NDArray[Any], window: tuple[float, float]) -> NDArray[np.float32]:
    """Clip to `window`, in the unit of the values, and scale it linearly to -1..1, float32."""
    low, high = window
    scaled: NDArray[np.floating[Any]] = (np.clip(values, low, high) - low) * (2.0 / (high - low)) - 1.0
    return scaled.astype(np.float32)
