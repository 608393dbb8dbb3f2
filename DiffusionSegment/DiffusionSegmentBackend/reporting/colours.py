"""Colours of organs on a report: the standard ones, changed where two are too similar."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

RGB = tuple[int, int, int]

# CIE Lab distance at which thin outlines and small swatches are clearly different; 2.3 is just noticeable.
MIN_DISTANCE = 25.0
# Visible on the black of air and the white of bone, and different from the scan's greys.
_LIGHTNESS = (45.0, 92.0)
_MIN_CHROMA = 30.0
_GRID_STEP = 15

_XYZ_OF_LINEAR_SRGB = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE_D65 = np.array([0.95047, 1.0, 1.08883])


def cie_lab(rgb: ArrayLike) -> NDArray[np.float64]:
    """CIE L*a*b* (..., 3) under D65 of sRGB colours (..., 3), 0..255."""
    encoded = np.asarray(rgb, dtype=np.float64) / 255.0
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    ratio = linear @ _XYZ_OF_LINEAR_SRGB.T / _WHITE_D65
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def distinct_colours(colours: Sequence[RGB], *, min_distance: float = MIN_DISTANCE) -> list[RGB]:
    """`colours` (0..255), each at least `min_distance` in CIE Lab from all others.

    A colour that is far enough from those before it is kept; otherwise the nearest such colour is taken, or, without
    any, the colour farthest from the others.
    """
    palette, palette_lab = _palette()
    chosen: list[RGB] = []
    for colour in colours:
        if not chosen or _nearest(cie_lab([colour]), chosen)[0] >= min_distance:
            chosen.append(colour)
            continue
        free = _nearest(palette_lab, chosen)
        moved = np.linalg.norm(palette_lab - cie_lab(colour), axis=-1)
        fits = free >= min_distance
        best = int(np.where(fits, moved, np.inf).argmin() if fits.any() else free.argmax())
        red, green, blue = (int(v) for v in palette[best])
        chosen.append((red, green, blue))
    return chosen


def _nearest(lab: NDArray[np.float64], chosen: Sequence[RGB]) -> NDArray[np.float64]:
    """Distance (n,) of each colour (n, 3) in Lab from the nearest of those chosen."""
    distances: NDArray[np.float64] = np.linalg.norm(lab[:, None] - cie_lab(chosen)[None], axis=-1)
    nearest: NDArray[np.float64] = distances.min(axis=1)
    return nearest


def _palette() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Vivid colours of medium lightness, (n, 3) in sRGB 0..255 and in Lab."""
    axis = np.arange(0, 256, _GRID_STEP)
    rgb = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = cie_lab(rgb)
    low, high = _LIGHTNESS
    vivid = (lab[:, 0] >= low) & (lab[:, 0] <= high) & (np.hypot(lab[:, 1], lab[:, 2]) >= _MIN_CHROMA)
    return rgb[vivid], lab[vivid]
