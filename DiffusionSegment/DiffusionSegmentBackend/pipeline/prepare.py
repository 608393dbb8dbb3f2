"""From Hounsfield units to what the networks see: the model's window scaled to -1..1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Above this an image in -1..1 shows the body; a little stricter than tissue against air, for noise around it.
BODY_THRESHOLD = -0.9


def windowed(hounsfield: NDArray, window: tuple[float, float]) -> NDArray[np.float32]:
    """Clip to `window` (HU) and scale it linearly to -1..1, float32."""
    low, high = window
    scaled = (np.clip(hounsfield, low, high) - low) * (2.0 / (high - low)) - 1.0
    return scaled.astype(np.float32)
