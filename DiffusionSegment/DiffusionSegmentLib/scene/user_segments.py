"""What a model can learn from: every visible segment, organs and the reader's own, as one label map with names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode

from .layers import Layer, layersOf, lookUp, valueTable
from .segmented_scan import SegmentedScan

_MOST = 255


@dataclass(frozen=True)
class UserSegments:
    """`labels`, uint8 (k, j, i) in the input's grid, holds n + 1 where segment `names[n]` is drawn, else 0."""

    labels: np.ndarray
    names: tuple[str, ...]


def readUserSegments(scan: SegmentedScan) -> UserSegments:
    """The segments that are visible and not empty, in the order of Segment Editor's table.

    An organ that still has its title goes by the model's name for it, so that its code and colour are found again;
    others by the name that the reader gave.

    Raises:
        DiffusionSegmentError: INPUT_MISSING or GEOMETRY, see `layersOf`; INPUT_VALUES where two segments claim a voxel,
            or none is to be seen; OPTION for more than 255.
    """
    layers = layersOf(scan)
    labels = np.zeros(scan.box.shape, np.uint8)
    names: list[str] = []
    for segmentId in _visible(scan.segmentation):
        layer = next((layer for layer in layers if segmentId in layer.values), None)
        if layer is None or not _draw(scan, layer, segmentId, labels, names):
            continue
        names.append(_nameOf(scan, segmentId))
    if not names:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_VALUES,
            f"{scan.segmentation.GetName()} shows no segment to learn from.",
            hint="Draw one with Segment Editor, or make one visible.",
        )
    return UserSegments(labels, tuple(names))


def _visible(segmentation: slicer.vtkMRMLSegmentationNode) -> list[str]:
    display = segmentation.GetDisplayNode()
    everyone = segmentation.GetSegmentation().GetSegmentIDs()
    return [name for name in everyone if display is None or display.GetSegmentVisibility(name)]


def _draw(scan: SegmentedScan, layer: Layer, segmentId: str, labels: np.ndarray, names: list[str]) -> bool:
    """Write one segment into the map as the next label; False where it is empty inside the scan."""
    inside = layer.box.cut(scan.box)
    if inside.empty:
        return False
    table = valueTable({layer.values[segmentId]: 1})
    drawn = lookUp(table, layer.voxels()[inside.within(layer.box)]) > 0
    if not drawn.any():
        return False
    place = labels[inside.slices]
    claimed = place[drawn]
    if claimed.any():
        raise _overlap(
            _nameOf(scan, segmentId), names[int(claimed[claimed > 0][0]) - 1], int(np.count_nonzero(claimed))
        )
    if len(names) == _MOST:
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"More than {_MOST} segments are visible.",
            hint="Hide those that the model should not learn.",
        )
    place[drawn] = len(names) + 1
    return True


def _nameOf(scan: SegmentedScan, segmentId: str) -> str:
    name = str(scan.segmentation.GetSegmentation().GetSegment(segmentId).GetName())
    organ = scan.label(segmentId)
    return organ.name if organ is not None and organ.title == name else name


def _overlap(first: str, second: str, voxels: int) -> DiffusionSegmentError:
    return DiffusionSegmentError(
        ErrorCode.INPUT_VALUES,
        f"'{second}' and '{first}' share {voxels} voxels.",
        hint="Hide one of them, or let one overwrite the other in Segment Editor.",
    )
