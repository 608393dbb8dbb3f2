"""The samples of a run as alternative segmentations in the scan's own geometry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from ...imaging.volume import Box
from ..memory import memory_errors
from ..restore import interpolated, native_box
from ..session import Session

_SLAB = 16
_MAX_DIFFERENCES = 5
_MIN_DIFFERENCE_ML = 0.1


@dataclass(frozen=True)
class GridAlternative:
    """A label map (z, y, x), uint8, on the model's grid, that `samples` of the K samples have, a fraction `share`."""

    labels: Tensor
    samples: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A connected piece on the model's grid with `label` in an alternative and `instead` in the segmentation.

    `position_lps_mm` is the piece's voxel nearest to its centroid.
    """

    label: int
    instead: int
    volume_ml: float
    position_lps_mm: tuple[float, float, float]


def grid_alternatives(session: Session) -> list[GridAlternative]:
    """The distinct label maps of the samples, most frequent first, with unrequested labels as 0.

    Scribbled voxels have the label of their scribble in all of them.
    """
    counted: list[tuple[Tensor, int]] = []
    for sample in session.prediction.sample_labels:
        labels = _requested(sample, session.wanted)
        if session.scribbles is not None:
            labels = torch.where(session.scribbles > 0, session.scribbles - 1, labels)
        for n, (earlier, count) in enumerate(counted):
            if torch.equal(earlier, labels):
                counted[n] = (earlier, count + 1)
                break
        else:
            counted.append((labels, 1))
    total = len(session.prediction.sample_labels)
    counted.sort(key=lambda item: -item[1])
    return [GridAlternative(labels, count, round(count / total, 4)) for labels, count in counted]


def alternative_map(alternative: GridAlternative, session: Session) -> NDArray[np.uint8]:
    """An alternative as a label map (k, j, i) of the whole scan.

    Raises:
        DiffusionSegmentError: OUT_OF_MEMORY.
    """
    grid = session.grid
    whole = np.zeros(grid.native_shape, dtype=np.uint8)
    organs = alternative.labels > 0
    if bool(organs.any()):
        with torch.inference_mode(), memory_errors():
            box = native_box(organs, session.prediction.offset, grid)
            whole[box] = _restored(alternative.labels, box, session)
    return grid.order.undo(whole)


def differences(alternative: GridAlternative, segmentation: NDArray[np.uint8], session: Session) -> list[Difference]:
    """The largest pieces, at least 0.1 mL, in which an alternative differs from a segmentation (z, y, x)."""
    labels = alternative.labels.numpy()
    classes = session.prediction.pre.shape[0]
    pairs = np.where(labels != segmentation, labels.astype(np.int32) * classes + segmentation + 1, 0)
    voxel_ml = session.grid.voxel_ml
    pieces: list[Difference] = []
    for pair in np.unique(pairs[pairs > 0]).tolist():
        components, _ = ndimage.label(pairs == pair)
        for number, box in enumerate(ndimage.find_objects(components), start=1):
            voxels = np.argwhere(components[box] == number)
            volume_ml = len(voxels) * voxel_ml
            if volume_ml < _MIN_DIFFERENCE_ML:
                continue
            nearest = voxels[np.argmin(((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1))]
            start = [s.start + o for s, o in zip(box, session.prediction.offset, strict=True)]
            x, y, z = (round(float(value), 1) for value in session.grid.lps(nearest + start))
            label, instead = divmod(pair - 1, classes)
            pieces.append(
                Difference(label=label, instead=instead, volume_ml=round(volume_ml, 2), position_lps_mm=(x, y, z))
            )
    return sorted(pieces, key=lambda piece: -piece.volume_ml)[:_MAX_DIFFERENCES]


def _requested(labels: Tensor, wanted: list[int]) -> Tensor:
    if not wanted:
        return labels
    return torch.where(torch.isin(labels, labels.new_tensor(wanted)), labels, torch.zeros_like(labels))


def _restored(sample: Tensor, box: Box, session: Session) -> NDArray[np.uint8]:
    """One label map at the native canonical voxels of a box: the arg max of its interpolated indicator functions."""
    classes = session.prediction.pre.shape[0]
    indicators = torch.nn.functional.one_hot(sample.long(), classes).movedim(-1, 0).float()
    z, y, x = box
    slabs = [
        interpolated(
            indicators, session.prediction.offset, session.grid, (slice(low, min(low + _SLAB, z.stop)), y, x)
        ).argmax(dim=0)
        for low in range(z.start, z.stop, _SLAB)
    ]
    return torch.cat(slabs).byte().numpy()
