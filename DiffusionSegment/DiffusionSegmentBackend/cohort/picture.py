"""The thumbnail of a result: an axial and a coronal slice with the organs in colour, as PNG without metadata."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..imaging.volume import Volume, canonical

SIDE = 160
_CT_WINDOW = (-160.0, 240.0)
_PERCENTILES = (1.0, 99.0)
_OPACITY = 0.45
_NO_COLOUR = (255, 200, 0)
Colours = Mapping[int, tuple[int, int, int] | None]


def thumbnail(scan: Volume, labels: NDArray[np.uint8], colours: Colours, *, hounsfield: bool) -> bytes:
    """A PNG of 320 x 160 pixels: left the axial slice, right the coronal one, each with the most organ voxels.

    Args:
        scan: the scan (k, j, i).
        labels: labels of the same shape, 0 background.
        colours: red, green and blue of the label values, 0..255.
        hounsfield: whether the values are HU; otherwise grey shows the 1st to the 99th percentile.
    """
    image, _ = canonical(scan)
    mask, _ = canonical(Volume(labels, scan.index_to_lps))
    low, high = _CT_WINDOW if hounsfield else np.percentile(image.array[::2, ::2, ::2], _PERCENTILES)
    x, y, z = image.spacing
    level, row = _fullest(mask.array, 0), _fullest(mask.array, 1)
    views = (
        (image.array[level], mask.array[level], (y, x)),
        (image.array[::-1, row], mask.array[::-1, row], (z, x)),
    )
    panels = [_panel(grey, label, spacing, (float(low), float(high)), colours) for grey, label, spacing in views]
    return png(np.concatenate(panels, axis=1))


def _fullest(labels: NDArray[np.uint8], axis: int) -> int:
    """The index along an axis with the most labelled voxels; the middle without any."""
    counts = np.count_nonzero(labels, axis=tuple(other for other in range(3) if other != axis))
    return int(counts.argmax()) if counts.any() else labels.shape[axis] // 2


def _panel(
    grey: NDArray[Any],
    labels: NDArray[np.uint8],
    spacing: tuple[float, float],
    window: tuple[float, float],
    colours: Colours,
) -> NDArray[np.uint8]:
    """A slice (rows, columns) of pixels of `spacing` mm as (160, 160, 3), in its true proportions on black."""
    rows, columns = grey.shape
    scale = max(rows * spacing[0], columns * spacing[1]) / SIDE
    height, width = (max(1, round(n * step / scale)) for n, step in zip((rows, columns), spacing, strict=True))
    at = np.ix_(np.arange(height) * rows // height, np.arange(width) * columns // width)
    low, high = window
    values = np.clip((grey[at].astype(np.float32) - low) / max(high - low, 1e-6), 0.0, 1.0) * 255
    rgb = np.repeat(values[..., None], 3, axis=2)
    shown = labels[at]
    for value in np.unique(shown[shown > 0]):
        colour = np.array(colours.get(int(value)) or _NO_COLOUR, dtype=np.float32)
        rgb[shown == value] = (1 - _OPACITY) * rgb[shown == value] + _OPACITY * colour
    panel = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    panel[top : top + height, left : left + width] = rgb.astype(np.uint8)
    return panel


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels (rows, columns, 3) as PNG (ISO/IEC 15948) with the three chunks that it needs and no text."""
    rows, columns, _ = pixels.shape
    # Every line begins with the number of its filter, 0 for none.
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), pixels.reshape(rows, -1)], axis=1)
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
