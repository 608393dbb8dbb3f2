"""Islands: pieces of an organ much smaller than its largest, somewhere else in the body, and hardly ever that organ."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

# Measured on 27 validation CTs (docs/EVIDENCE.md), rounded up: of 123 islands 6 were mostly the organ.
_STILL_ORGAN = 0.1
_TOUCHING = np.ones((3, 3, 3), dtype=bool)


def sink_islands(
    probabilities: Tensor, *, smallest_piece: float, marks: Tensor | None = None, within: Tensor | None = None
) -> NDArray[np.uint8]:
    """Give islands in probabilities (classes, z, y, x) to the background, in place; a tenth of doubt stays.

    An island is a connected piece of an organ (26 neighbours) smaller than `smallest_piece`, 0..1, of the organ's
    largest; at 0 there are none. A piece in which a reader's `marks` (z, y, x), k + 1 for label k, hold that organ is
    none. Voxels that are False in `within` (z, y, x) stay as they are. Returns the labels that islands had (z, y, x).
    """
    if smallest_piece <= 0:
        return np.zeros(tuple(probabilities.shape[1:]), dtype=np.uint8)
    labels = _labels(probabilities)
    held = None if marks is None else marks.numpy() == labels + 1
    islands = find_islands(labels, smallest_piece=smallest_piece, held=held)
    if within is not None:
        islands[~within.numpy()] = 0
    for value in np.unique(islands[islands > 0]).tolist():
        places = torch.from_numpy(islands == value)
        both = probabilities[0][places] + probabilities[value][places]
        probabilities[value][places] = _STILL_ORGAN * both
        probabilities[0][places] = (1 - _STILL_ORGAN) * both
    return islands


def find_islands(
    labels: NDArray[np.uint8], *, smallest_piece: float, held: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """The label of every voxel that is part of an island, else 0; shape of `labels` (z, y, x).

    A piece with a voxel that is `held` (z, y, x) is none.
    """
    islands = np.zeros_like(labels)
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        pieces, count = ndimage.label(labels[box] == value, structure=_TOUCHING)
        if count > 1:
            sizes = np.bincount(pieces.ravel())
            small = sizes < smallest_piece * sizes[1:].max()
            small[0] = False
            if held is not None:
                small[pieces[held[box]]] = False
            islands[box][small[pieces]] = value
    return islands


def pieces_of(islands: NDArray[np.uint8]) -> list[tuple[int, NDArray[np.intp]]]:
    """The label and the voxels (n, 3) of each island."""
    found = []
    for value in np.unique(islands[islands > 0]).tolist():
        pieces, count = ndimage.label(islands == value, structure=_TOUCHING)
        found += [(value, np.argwhere(pieces == number)) for number in range(1, count + 1)]
    return found


def _labels(probabilities: Tensor) -> NDArray[np.uint8]:
    """The likeliest label, class by class: argmax would take eight bytes a voxel, and eight times as long."""
    labels = torch.zeros(tuple(probabilities.shape[1:]), dtype=torch.uint8)
    best = probabilities[0].clone()
    for value, rival in enumerate(probabilities[1:], start=1):
        labels.masked_fill_(rival > best, value)
        torch.maximum(best, rival, out=best)
    return labels.numpy()
