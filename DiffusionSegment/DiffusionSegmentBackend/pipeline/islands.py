"""Removal of islands: small connected pieces of an organ apart from its largest piece, which are rarely that organ."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

# Probability that an island is the organ. Measured on 27 validation CTs (docs/EVIDENCE.md), rounded up: of 123
# islands 6 were mostly the organ.
_ORGAN_PROBABILITY = 0.1
CONNECTIVITY_26 = np.ones((3, 3, 3), dtype=bool)


def remove_islands(
    probabilities: Tensor, *, smallest_piece: float, scribbles: Tensor | None = None, within: Tensor | None = None
) -> NDArray[np.uint8]:
    """Move the probability of islands to the background, in place; a tenth stays with the organ.

    Args:
        probabilities: (classes, z, y, x), modified in place.
        smallest_piece: size of the smallest piece that is kept, relative to the organ's largest, 0..1. An island is a
            smaller 26-connected piece of an organ; at 0 there are none.
        scribbles: corrections (z, y, x), k + 1 for label k. A piece with a scribble of its own label is not an island.
        within: bool (z, y, x); voxels outside are not changed.

    Returns:
        The labels (z, y, x) that the islands had, 0 elsewhere.
    """
    if smallest_piece <= 0:
        return np.zeros(tuple(probabilities.shape[1:]), dtype=np.uint8)
    labels = _labels(probabilities)
    held = None if scribbles is None else scribbles.numpy() == labels + 1
    islands = find_islands(labels, smallest_piece=smallest_piece, held=held)
    if within is not None:
        islands[~within.numpy()] = 0
    for value in np.unique(islands[islands > 0]).tolist():
        voxels = torch.from_numpy(islands == value)
        both = probabilities[0][voxels] + probabilities[value][voxels]
        probabilities[value][voxels] = _ORGAN_PROBABILITY * both
        probabilities[0][voxels] = (1 - _ORGAN_PROBABILITY) * both
    return islands


def find_islands(
    labels: NDArray[np.uint8], *, smallest_piece: float, held: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """The label of every voxel of an island, 0 elsewhere; of the shape of `labels` (z, y, x).

    A piece that contains a voxel of the mask `held` (z, y, x) is not an island.
    """
    islands = np.zeros_like(labels)
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        pieces, count = ndimage.label(labels[box] == value, structure=CONNECTIVITY_26)
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
    islands_by_label = []
    for value in np.unique(islands[islands > 0]).tolist():
        pieces, count = ndimage.label(islands == value, structure=CONNECTIVITY_26)
        islands_by_label += [(value, np.argwhere(pieces == number)) for number in range(1, count + 1)]
    return islands_by_label


def _labels(probabilities: Tensor) -> NDArray[np.uint8]:
    """The arg max over classes as uint8; torch's takes eight bytes per voxel and eight times as long."""
    labels = torch.zeros(tuple(probabilities.shape[1:]), dtype=torch.uint8)
    best = probabilities[0].clone()
    for value, probability in enumerate(probabilities[1:], start=1):
        labels.masked_fill_(probability > best, value)
        torch.maximum(best, probability, out=best)
    return labels.numpy()
