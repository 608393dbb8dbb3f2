"""The current segmentation as one label map on the grid of the input, and labels written back into it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import slicer
from numpy.typing import NDArray

from .box import Box, boxAround
from .layers import BINARY, Layer, layersOf, lookUp, valueTable
from .segmentation import newSegment, showSurfaces, valuesIn
from .segmented_scan import SegmentedScan, readReport
from .terminology import LabelDefinition

_SURFACE = str(slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName())


@dataclass(frozen=True)
class PresentLabels:
    """The organs of the segmentation in the voxels of `box`; other segments are not included.

    `labels`: uint8 (k, j, i), label values of the model. Where segments overlap, the later one counts; `overlapping` is
    the number of such voxels, `outside` the number of segmented voxels outside the input volume.
    """

    labels: NDArray[np.uint8]
    box: Box
    overlapping: int = 0
    outside: int = 0


def readLabels(scan: SegmentedScan, *, box: Box | None = None, shared: bool = False) -> PresentLabels:
    """Read the organs, identified by the ids of their segments, from the layers of the node.

    Args:
        scan: the segmented scan.
        box: the voxels to read; default: the whole volume.
        shared: the labels may be a read-only view of the node's voxels, which is faster; they change with the node.

    Raises:
        DiffusionSegmentError: INPUT_MISSING or GEOMETRY, see `layersOf`.
    """
    wanted = scan.box.cut(box) if box is not None else scan.box
    labels: NDArray[np.uint8] | None = None
    overlapping = outside = 0
    organLayers = [(layer, _toModel(layer, scan)) for layer in layersOf(scan)]
    organLayers = [(layer, table) for layer, table in organLayers if table.any()]
    for layer, table in organLayers:
        inside = layer.box.cut(wanted)
        if not scan.box.contains(layer.box):
            outside += _countOutside(layer, scan.box, table)
        if inside.empty:
            continue
        voxels = layer.voxels()[inside.within(layer.box)]
        unchanged = shared and len(organLayers) == 1 and voxels.dtype == np.uint8
        if unchanged and all(table[value] == value for value in valuesIn(voxels)):
            drawn = voxels.view()
            drawn.flags.writeable = False
        else:
            drawn = lookUp(table, voxels)
        if labels is None and inside == wanted:
            labels = drawn
            continue
        labels = np.zeros(wanted.shape, np.uint8) if labels is None else labels
        view = labels[inside.within(wanted)]
        overlapping += int(np.count_nonzero((view > 0) & (drawn > 0)))
        np.copyto(view, drawn, where=drawn > 0)
    return PresentLabels(np.zeros(wanted.shape, np.uint8) if labels is None else labels, wanted, overlapping, outside)


def userSegmentMask(scan: SegmentedScan) -> NDArray[np.bool_]:
    """Mask (k, j, i), bool: voxels of the input in segments other than the organs of the model."""
    mask = np.zeros(scan.box.shape, bool)
    for layer in layersOf(scan):
        table = _userTable(layer, scan)
        inside = layer.box.cut(scan.box)
        if table.any() and not inside.empty:
            mask[inside.slices] |= lookUp(table, layer.voxels()[inside.within(layer.box)]) > 0
    return mask


def writeLabels(scan: SegmentedScan, labels: NDArray[np.uint8], *, box: Box | None = None) -> None:
    """Replace the organs inside `box` (default: the whole volume) by those of `labels`, uint8 (k, j, i).

    User segments keep every voxel: one that shares a layer with an organ is moved to a separate layer where both have a
    voxel. Organs without a segment get one, with the terminology of the model; organs without voxels stay as empty
    segments. Surfaces are updated where the node has them. The node is modified once.

    Raises:
        DiffusionSegmentError: INPUT_MISSING or GEOMETRY, see `layersOf`.
        ValueError: when `labels` does not have the shape of the box, or the box reaches beyond the volume.
    """
    target = scan.box if box is None else box
    if labels.shape != target.shape or not scan.box.contains(target):
        raise ValueError(f"Labels of shape {labels.shape} do not fit box {target} of the volume.")
    layersOf(scan)
    node = scan.segmentation
    surfaces = node.GetSegmentation().ContainsRepresentation(_SURFACE)
    wasModified = node.StartModify()
    try:
        _addMissing(scan, labels)
        _separateUserSegments(scan, labels, target)
        for layer in layersOf(scan):
            _writeLayer(layer, scan, labels, target)
        if surfaces and not node.GetSegmentation().ContainsRepresentation(_SURFACE):
            showSurfaces(node)
    finally:
        node.EndModify(wasModified)


def _writeLayer(layer: Layer, scan: SegmentedScan, labels: NDArray[np.uint8], box: Box) -> None:
    table = _fromModel(layer, scan)
    if not table.any():
        return
    new = table[labels]
    changed = boxAround(new) if not layer.box.contains(box) else None
    if changed is not None:
        corner = tuple(int(n) for n in np.add(box.start, changed.start))
        layer.cover(Box.ofShape(changed.shape, (corner[0], corner[1], corner[2])))
    inside = layer.box.cut(box)
    if inside.empty:
        return
    view = layer.voxels()[inside.within(layer.box)]
    others = _userTable(layer, scan)
    part = new[inside.within(box)]
    if others.any():
        part = np.where(lookUp(others, view) > 0, view, part)
    if np.array_equal(view, part):
        return
    view[...] = part
    layer.image.GetPointData().GetScalars().Modified()
    # The segmentation passes this event of the image on to display and other representations.
    layer.image.Modified()


def _addMissing(scan: SegmentedScan, labels: NDArray[np.uint8]) -> None:
    segmentation = scan.segmentation.GetSegmentation()
    present = valuesIn(labels)
    missing = [label for label in scan.labels if label.value in present and not segmentation.GetSegment(label.name)]
    if not missing:
        return
    segmentation.SetSourceRepresentationName(BINARY)
    layers = layersOf(scan)
    shared = next((layer for layer in layers if _toModel(layer, scan).any()), layers[0] if layers else None)
    image = shared.image if shared else slicer.vtkOrientedImageData()
    used = set(shared.values.values()) if shared else set()
    provenance = readReport(scan.segmentation).provenance
    for label in missing:
        value = label.value if label.value not in used else _freeValue(used)
        used.add(value)
        segment = newSegment(label, image, provenance)
        segment.SetLabelValue(value)
        segmentation.AddSegment(segment, label.name)


def _freeValue(used: set[int]) -> int:
    """A value that no segment of the layer uses; values above 255 do not occur, because models have fewer labels."""
    return next(value for value in range(1, 256) if value not in used)


def _separateUserSegments(scan: SegmentedScan, labels: NDArray[np.uint8], box: Box) -> None:
    """Move user segments to a separate layer where an organ of the same layer is about to take a voxel."""
    for layer in layersOf(scan):
        table, others = _fromModel(layer, scan), _userSegments(layer, scan)
        inside = layer.box.cut(box)
        if not table.any() or not others or inside.empty:
            continue
        present = layer.voxels()[inside.within(layer.box)]
        claimed = present[table[labels[inside.within(box)]] > 0]
        hit = set(np.unique(claimed).tolist())
        for name in others:
            if layer.values[name] in hit:
                scan.segmentation.GetSegmentation().SeparateSegmentLabelmap(name)


def _userSegments(layer: Layer, scan: SegmentedScan) -> list[str]:
    return [name for name in layer.values if scan.label(name) is None]


def _userTable(layer: Layer, scan: SegmentedScan) -> NDArray[np.uint8]:
    return valueTable({layer.values[name]: 1 for name in _userSegments(layer, scan)})


def _toModel(layer: Layer, scan: SegmentedScan) -> NDArray[np.uint8]:
    return valueTable({layer.values[label.name]: label.value for label in _organsIn(layer, scan)})


def _fromModel(layer: Layer, scan: SegmentedScan) -> NDArray[np.uint8]:
    return valueTable({label.value: layer.values[label.name] for label in _organsIn(layer, scan)})


def _organsIn(layer: Layer, scan: SegmentedScan) -> Iterable[LabelDefinition]:
    return [label for label in scan.labels if label.name in layer.values]


def _countOutside(layer: Layer, box: Box, table: NDArray[np.uint8]) -> int:
    drawn = lookUp(table, layer.voxels()) > 0
    inside = drawn[layer.box.cut(box).within(layer.box)]
    return int(np.count_nonzero(drawn) - np.count_nonzero(inside))
