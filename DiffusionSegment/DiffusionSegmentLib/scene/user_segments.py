"""Training labels for fine-tuning: every visible segment, organs and user segments, as one label map with names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from numpy.typing import NDArray

from .layers import Layer, layersOf, lookUp, valueTable
from .segmented_scan import SegmentedScan

_MAX_SEGMENTS = 255


@dataclass(frozen=True)
class UserSegments:
    """`labels`, uint8 (k, j, i) on the grid of the input, is n + 1 in segment `names[n]`, else 0."""

    labels: NDArray[np.uint8]
    names: tuple[str, ...]


def readUserSegments(scan: SegmentedScan) -> UserSegments:
    """The visible segments that are not empty, in the order of the table of Segment Editor.

    An organ that still has its title gets the name of its label definition, so that its code and colour can be looked
    up; other segments keep their names.

    Raises:
        DiffusionSegmentError: INPUT_MISSING or GEOMETRY, see `layersOf`; INPUT_VALUES where two segments overlap or
            none is visible; OPTION for more than 255.
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
    segmentIds = segmentation.GetSegmentation().GetSegmentIDs()
    return [name for name in segmentIds if display is None or display.GetSegmentVisibility(name)]


def _draw(scan: SegmentedScan, layer: Layer, segmentId: str, labels: NDArray[np.uint8], names: list[str]) -> bool:
    """Write one segment into the map as the next label; returns False for one that is empty inside the scan."""
    inside = layer.box.cut(scan.box)
    if inside.empty:
        return False
    table = valueTable({layer.values[segmentId]: 1})
    drawn = lookUp(table, layer.voxels()[inside.within(layer.box)]) > 0
    if not drawn.any():
        return False
    view = labels[inside.slices]
    occupied = view[drawn]
    if occupied.any():
        raise _overlap(
            _nameOf(scan, segmentId), names[int(occupied[occupied > 0][0]) - 1], int(np.count_nonzero(occupied))
        )
    if len(names) == _MAX_SEGMENTS:
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"More than {_MAX_SEGMENTS} segments are visible.",
            hint="Hide those that the model should not learn.",
        )
    view[drawn] = len(names) + 1
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
