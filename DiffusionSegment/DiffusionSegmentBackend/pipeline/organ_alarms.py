"""Alarms about whole organs: rules that need no network and hold for a segmentation from any source.

Each rule compares the label map with what the training cases of the model showed (`usual_ml`, `one_piece` in
model.json) or with anatomy (right and left). An alarm says what is unusual, not that it is wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..imaging.volume import Grid
from ..schema.model_manifest import ModelLabel
from ..schema.report import AlarmKind, OrganAlarm
from .islands import CONNECTIVITY_26

# Few training cases do not span the population: by this factor, leave one out, 15 of 18 abdomens raise no alarm.
_VOLUME_TOLERANCE = 1.75
# A separate piece counts from this share of the largest and this volume.
_MIN_PIECE_SHARE, _MIN_PIECE_ML = 0.1, 1.0
# More than this share of an organ in one face of the scan: it is cut off, and its volume says nothing.
_MAX_FACE_SHARE = 0.02


@dataclass(frozen=True)
class LabelMapOnGrid:
    """A label map (z, y, x) that begins at voxel `offset` of a grid and holds the label values `covered`."""

    labels: NDArray[np.uint8]
    grid: Grid
    offset: tuple[int, int, int]
    covered: Collection[int]


def organ_alarms(label_map: LabelMapOnGrid, labels: Sequence[ModelLabel]) -> tuple[OrganAlarm, ...]:
    """Alarms in the order of the labels: absent organs, unusual volumes, separate pieces, swapped sides."""
    alarms: list[OrganAlarm] = []
    boxes = ndimage.find_objects(label_map.labels, max_label=max(label.value for label in labels))
    covered = [label for label in labels if label.value in label_map.covered]
    for label in covered:
        box = boxes[label.value - 1]
        if box is None:
            alarms.append(_alarm(label, AlarmKind.ABSENT, f"{label.title} is absent."))
            continue
        mask = label_map.labels[box] == label.value
        position = _position(mask, box, label_map)
        alarms += _volume_alarm(label, mask, box, label_map, position)
        alarms += _piece_alarm(label, mask, box, label_map)
    return (*alarms, *_side_alarms(covered, boxes, label_map))


def _volume_alarm(
    label: ModelLabel,
    mask: NDArray[np.bool_],
    box: tuple[slice, ...],
    label_map: LabelMapOnGrid,
    position: tuple[float, float, float],
) -> list[OrganAlarm]:
    if label.usual_ml is None or is_cut(mask, box, label_map.labels.shape):
        return []
    low, high = label.usual_ml[0] / _VOLUME_TOLERANCE, label.usual_ml[1] * _VOLUME_TOLERANCE
    volume = np.count_nonzero(mask) * label_map.grid.voxel_ml
    if low <= volume <= high:
        return []
    word = "small" if volume < low else "large"
    usual = f"{label.usual_ml[0]:.0f} to {label.usual_ml[1]:.0f} mL in the training cases"
    sentence = f"{label.title} is unusually {word}: {volume:.0f} mL; {usual}."
    return [_alarm(label, AlarmKind.VOLUME, sentence, position)]


def _piece_alarm(
    label: ModelLabel, mask: NDArray[np.bool_], box: tuple[slice, ...], label_map: LabelMapOnGrid
) -> list[OrganAlarm]:
    pieces, count = ndimage.label(mask, structure=CONNECTIVITY_26)
    if not label.one_piece or count < 2:
        return []
    sizes = np.bincount(pieces.ravel())[1:] * label_map.grid.voxel_ml
    order = np.argsort(-sizes)
    second = float(sizes[order[1]])
    if second < max(_MIN_PIECE_ML, _MIN_PIECE_SHARE * float(sizes[order[0]])):
        return []
    position = _position(pieces == order[1] + 1, box, label_map)
    sentence = f"{label.title} is in separate pieces of {sizes[order[0]]:.0f} and {second:.0f} mL."
    return [_alarm(label, AlarmKind.PIECES, sentence, position)]


def _side_alarms(
    labels: Sequence[ModelLabel], boxes: Sequence[tuple[slice, ...] | None], label_map: LabelMapOnGrid
) -> list[OrganAlarm]:
    """An alarm for each pair right_X, left_X whose right one lies further left in the patient."""
    by_name = {label.name: label for label in labels if boxes[label.value - 1] is not None}
    alarms = []
    for name, right in by_name.items():
        left = by_name.get(name.replace("right_", "left_", 1))
        if not name.startswith("right_") or left is None:
            continue
        right_at, left_at = (_centroid(label.value, boxes[label.value - 1], label_map) for label in (right, left))
        if right_at[0] > left_at[0]:
            sentence = f"{right.title} lies to the left of the {left.title.lower()}: the sides may be swapped."
            alarms.append(_alarm(right, AlarmKind.SIDES, sentence, right_at))
    return alarms


def _alarm(
    label: ModelLabel, kind: AlarmKind, sentence: str, position: tuple[float, float, float] | None = None
) -> OrganAlarm:
    return OrganAlarm(organ=label.name, kind=kind, sentence=sentence, position_lps_mm=position)


def is_cut(mask: NDArray[np.bool_], box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    """Whether the `mask` of an organ in a box of a map ends at a face of the map with over 2 % of its voxels."""
    limit = _MAX_FACE_SHARE * np.count_nonzero(mask)
    return any(
        np.count_nonzero(mask.take(index, axis=axis)) > limit
        for axis, (part, size) in enumerate(zip(box, shape, strict=True))
        for index, end in ((0, part.start == 0), (-1, part.stop == size))
        if end
    )


def _centroid(value: int, box: tuple[slice, ...] | None, label_map: LabelMapOnGrid) -> tuple[float, float, float]:
    assert box is not None
    voxels = np.argwhere(label_map.labels[box] == value) + [part.start for part in box] + np.array(label_map.offset)
    x, y, z = label_map.grid.lps(voxels.mean(axis=0))
    return round(float(x), 1), round(float(y), 1), round(float(z), 1)


def _position(mask: NDArray[np.bool_], box: tuple[slice, ...], label_map: LabelMapOnGrid) -> tuple[float, float, float]:
    """LPS mm of the voxel of a mask nearest to its centroid."""
    voxels = np.argwhere(mask)
    nearest = voxels[((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    x, y, z = label_map.grid.lps(nearest + [part.start for part in box] + np.array(label_map.offset))
    return round(float(x), 1), round(float(y), 1), round(float(z), 1)
