"""Agreement of overlapping tiles on the labels, and visibility of seams in the blended result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from DiffusionSegmentBackend.imaging.volume import Box
from DiffusionSegmentBackend.pipeline.tiling import Tiling
from numpy.typing import NDArray
from torch import Tensor

# Distances of planes between voxels from the middle of an overlap: at a possible seam, and beside it.
_SEAM_VOXELS = 1.5
_BESIDE_VOXELS = (4.0, 12.0)


@dataclass(frozen=True)
class TileAgreement:
    """Agreement of the tiles of one scan.

    Attributes:
        dice: Dice (0..1) of the labels of neighbouring tiles in their overlaps, all labels but 0 pooled; NaN without
            any label.
        seam_ratio: mean number of boundary faces of the blended labels in planes in the middle of overlaps, divided by
            that in planes 4 to 12 voxels away: 1 without seams; NaN for a single tile or without any label.
    """

    dice: float
    seam_ratio: float


def tile_agreement(tiling: Tiling, predict: Callable[[int, Box], Tensor], *, channels: int) -> TileAgreement:
    """Agreement of the tiles of one scan; `predict` returns the probabilities of a tile, as for `Tiling.blend`."""
    labels: list[NDArray[np.uint8]] = []

    def predict_labels(index: int, tile: Box) -> Tensor:
        probabilities = predict(index, tile)
        labels.append(probabilities.argmax(dim=0).to(torch.uint8).cpu().numpy())
        return probabilities

    blended = tiling.blend(predict_labels, channels=channels).argmax(dim=0).to(torch.uint8).numpy()
    return TileAgreement(dice_in_overlaps(tiling, labels), seam_ratio(tiling, blended))


def dice_in_overlaps(tiling: Tiling, labels: Sequence[NDArray[np.uint8]]) -> float:
    """Dice over all pairs of adjacent tiles in their overlaps; `labels` has one map (z, y, x) per tile."""
    agreeing = total = 0
    for first, second in _neighbours(tiling):
        shared = [
            slice(max(a.start, b.start), min(a.stop, b.stop))
            for a, b in zip(tiling.tiles[first], tiling.tiles[second], strict=True)
        ]
        one, other = (
            labels[n][
                tuple(slice(s.start - t.start, s.stop - t.start) for s, t in zip(shared, tiling.tiles[n], strict=True))
            ]
            for n in (first, second)
        )
        agreeing += 2 * int(np.count_nonzero((one == other) & (one > 0)))
        total += int(np.count_nonzero(one) + np.count_nonzero(other))
    return agreeing / total if total else float("nan")


def _neighbours(tiling: Tiling) -> Iterator[tuple[int, int]]:
    """Pairs of overlapping tiles that are shifted along a single axis."""
    for n, one in enumerate(tiling.tiles):
        for m in range(n + 1, len(tiling.tiles)):
            other = tiling.tiles[m]
            shifted = [a.start != b.start for a, b in zip(one, other, strict=True)]
            if sum(shifted) == 1 and all(
                a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True)
            ):
                yield n, m


def seam_ratio(tiling: Tiling, labels: NDArray[np.uint8]) -> float:
    """Boundary faces per plane in the middle of overlaps over those beside it, of blended labels (z, y, x)."""
    seam, beside = [], []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        faces = np.count_nonzero(np.diff(labels.astype(np.int16), axis=axis), axis=others)
        planes = np.arange(len(faces)) + 0.5
        starts = sorted({tile[axis].start for tile in tiling.tiles})
        for start, following in pairwise(starts):
            distance = np.abs(planes - ((following + start + tiling.sides[axis]) / 2 - 0.5))
            seam.append(faces[distance <= _SEAM_VOXELS].mean())
            beside.append(faces[(distance > _BESIDE_VOXELS[0]) & (distance <= _BESIDE_VOXELS[1])].mean())
    return float(np.sum(seam) / np.sum(beside)) if np.sum(beside) else float("nan")
