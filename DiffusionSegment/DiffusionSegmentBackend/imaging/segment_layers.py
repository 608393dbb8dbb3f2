"""Segments, each a mask of its own, as one label map."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DiffusionSegmentError, ErrorCode

_LARGEST_LABEL = 255


@dataclass(frozen=True)
class Layer:
    """The mask (k, j, i) of a segment, and its name."""

    name: str
    mask: NDArray[Any]


def merged(layers: Iterable[Layer], shape: tuple[int, ...], path: Path) -> NDArray[np.uint8]:
    """The segments as one label map of `shape` (k, j, i): n for the n-th of them, from 1.

    Raises:
        DiffusionSegmentError: INPUT_VALUES for two segments that share a voxel, and for more than 255 segments.
    """
    result = np.zeros(shape, dtype=np.uint8)
    names: list[str] = []
    for number, layer in enumerate(layers, start=1):
        if number > _LARGEST_LABEL:
            raise DiffusionSegmentError(
                ErrorCode.INPUT_VALUES,
                f"{path} has more than {_LARGEST_LABEL} segments.",
                hint="Export those that are to be reviewed.",
            )
        names.append(layer.name)
        mask = np.asarray(layer.mask, dtype=bool)
        taken = result[mask]
        if taken.any():
            other = int(np.bincount(taken[taken > 0]).argmax())
            shared = int(np.count_nonzero(taken == other))
            raise DiffusionSegmentError(
                ErrorCode.INPUT_VALUES,
                f"The segments '{names[other - 1]}' and '{layer.name}' of {path} overlap: {shared} voxels are in both.",
                hint="Export the segments without overlap, or leave one of them out.",
            )
        result[mask] = number
    return result
