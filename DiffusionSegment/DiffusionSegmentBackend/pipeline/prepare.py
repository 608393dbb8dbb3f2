"""From a scan's values to what the networks see: the model's window scaled to -1..1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.volume import Grid, Volume, check_values
from ..models.manifest import ModelDescription

# Above this an image in -1..1 shows the body; a little stricter than tissue against air, for noise around it.
BODY_THRESHOLD = -0.9
_FLOAT32 = np.finfo(np.float32)


def network_input(
    volume: Volume, grid: Grid, description: ModelDescription, *, what: str = "The scan"
) -> NDArray[np.float32]:
    """A scan on the model's grid as its networks see it: (z, y, x), -1..1; `what` names it where it is refused.

    Raises:
        DiffusionSegmentError: INPUT_VALUES for NaN or infinity, and as `window_of`.
    """
    check_values(volume.array, what=what)
    return windowed(grid.to_grid(volume.array), window_of(volume.array, description, what=what))


def window_of(array: NDArray, description: ModelDescription, *, what: str = "The scan") -> tuple[float, float]:
    """The values of a scan (k, j, i) that become -1 and 1.

    Percentiles are those of all voxels as they were acquired, so that a scan with another gain or offset (MR has no
    unit) gives the same input.

    Raises:
        DiffusionSegmentError: INPUT_VALUES where the percentiles of the scan are the same value.
    """
    if description.window_unit != "percentile":
        return description.window
    low, high = (float(value) for value in np.percentile(array, description.window))
    # What float32, in which the grid is, cannot tell apart is no contrast either.
    least = max(_FLOAT32.tiny, _FLOAT32.eps * max(abs(low), abs(high)))
    if not high - low > least:
        first, last = description.window
        raise DiffusionSegmentError(
            ErrorCode.INPUT_VALUES,
            f"{what} shows nothing: from percentile {first:g} to {last:g} all voxels are {low:g}.",
            hint="Choose the scan itself, not a mask or an empty volume.",
        )
    return low, high


def windowed(values: NDArray, window: tuple[float, float]) -> NDArray[np.float32]:
    """Clip to `window`, in the unit of the values, and scale it linearly to -1..1, float32."""
    low, high = window
    scaled = (np.clip(values, low, high) - low) * (2.0 / (high - low)) - 1.0
    return scaled.astype(np.float32)
