"""The segmentation as it is now, as one label map on the input's grid, and boxes of labels written back into it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import slicer

from .box import Box, boxAround
from .layers import BINARY, Layer, layersOf, lookUp, valueTable
from .segmentation import newSegment, showSurfaces, valuesIn
from .segmented_scan import SegmentedScan, readReport
from .terminology import LabelDefinition

_SURFACE = str(slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName())


@dataclass(frozen=True)
class PresentLabels:
    """The organs as they are drawn now, on the voxels of `box`; segments of other names are not among them.

    `labels`: uint8 (k, j, i), the model's values. Where segments overlap the later one counts; `overlapping` says how
    many voxels that concerns, `outside` how many drawn voxels lie beyond the input volume.
    """

    labels: np.ndarray
    box: Box
    overlapping: int = 0
    outside: int = 0


def readLabels(scan: SegmentedScan, *, box: Box | None = None, shared: bool = False) -> PresentLabels:
    """Read the organs, found by their segments' ids, from whatever layers the node keeps them in.

    `shared` labels may be the node's own voxels, which is quicker; they must not be written, and change with it.

    Raises:
        DiffusionSegmentError: INPUT_MISSING or GEOMETRY, see `layersOf`.
    """
    wanted = scan.box.cut(box) if box is not None else scan.box
    labels: np.ndarray | None = None
    overlapping = outside = 0
    drawnOn = [(layer, _toModel(layer, scan)) for layer in layersOf(scan)]
    drawnOn = [(layer, table) for layer, table in drawnOn if table.any()]
    for layer, table in drawnOn:
        inside = layer.box.cut(wanted)
        if not scan.box.contains(layer.box):
            outside += _countOutside(layer, scan.box, table)
        if inside.empty:
            continue
        voxels = layer.voxels()[inside.within(layer.box)]
        asIs = shared and len(drawnOn) == 1 and voxels.dtype == np.uint8
        if asIs and all(table[value] == value for value in valuesIn(voxels)):
            drawn = voxels.view()
            drawn.flags.writeable = False
        else:
            drawn = lookUp(table, voxels)
        if labels is None and inside == wanted:
            labels = drawn
            continue
        labels = np.zeros(wanted.shape, np.uint8) if labels is None else labels
        place = labels[inside.within(wanted)]
        overlapping += int(np.count_nonzero((place > 0) & (drawn > 0)))
        np.copyto(place, drawn, where=drawn > 0)
    return PresentLabels(np.zeros(wanted.shape, np.uint8) if labels is None else labels, wanted, overlapping, outside)


def occupiedByOthers(scan: SegmentedScan) -> np.ndarray:
    """Mask (k, j, i), bool: voxels of the input that belong to segments which are not the model's organs."""
    mask = np.zeros(scan.box.shape, bool)
    for layer in layersOf(scan):
        table = _ofOthers(layer, scan)
        inside = layer.box.cut(scan.box)
        if table.any() and not inside.empty:
            mask[inside.slices] |= lookUp(table, layer.voxels()[inside.within(layer.box)]) > 0
    return mask


def writeLabels(scan: SegmentedScan, labels: np.ndarray, *, box: Box | None = None) -> None:
    """Make the organs inside `box` (default: the whole volume) those of `labels`, uint8 (k, j, i) of the box's shape.

    Segments that are not the model's organs keep every voxel: one that shares a layer with an organ moves to a layer of
    its own where both claim a voxel. Organs without a segment get one, with the model's terminology; those that vanish
    stay as empty segments. Surfaces are made again where the node had them. The node tells of it once.

    Raises:
        DiffusionSegmentError: INPUT_MISSING or GEOMETRY, see `layersOf`.
        ValueError: when `labels` does not have the shape of the box, or the box reaches beyond the volume.
    """
    place = scan.box if box is None else box
    if labels.shape != place.shape or not scan.box.contains(place):
        raise ValueError(f"Labels of shape {labels.shape} do not fit box {place} of the volume.")
    layersOf(scan)
    node = scan.segmentation
    surfaces = node.GetSegmentation().ContainsRepresentation(_SURFACE)
    wasModified = node.StartModify()
    try:
        _addMissing(scan, labels)
        _moveOthersAway(scan, labels, place)
        for layer in layersOf(scan):
            _writeLayer(layer, scan, labels, place)
        if surfaces and not node.GetSegmentation().ContainsRepresentation(_SURFACE):
            showSurfaces(node)
    finally:
        node.EndModify(wasModified)


def _writeLayer(layer: Layer, scan: SegmentedScan, labels: np.ndarray, place: Box) -> None:
    table = _fromModel(layer, scan)
    if not table.any():
        return
    new = table[labels]
    changed = boxAround(new) if not layer.box.contains(place) else None
    if changed is not None:
        corner = tuple(int(n) for n in np.add(place.start, changed.start))
        layer.cover(Box.ofShape(changed.shape, (corner[0], corner[1], corner[2])))
    inside = layer.box.cut(place)
    if inside.empty:
        return
    view = layer.voxels()[inside.within(layer.box)]
    others = _ofOthers(layer, scan)
    part = new[inside.within(place)]
    if others.any():
        part = np.where(lookUp(others, view) > 0, view, part)
    if np.array_equal(view, part):
        return
    view[...] = part
    layer.image.GetPointData().GetScalars().Modified()
    # Display and other representations follow this event of the image, which the segmentation passes on.
    layer.image.Modified()


def _addMissing(scan: SegmentedScan, labels: np.ndarray) -> None:
    segmentation = scan.segmentation.GetSegmentation()
    present = valuesIn(labels)
    missing = [label for label in scan.labels if label.value in present and not segmentation.GetSegment(label.name)]
    if not missing:
        return
    segmentation.SetSourceRepresentationName(BINARY)
    layers = layersOf(scan)
    shared = next((layer for layer in layers if _toModel(layer, scan).any()), layers[0] if layers else None)
    image = shared.image if shared else slicer.vtkOrientedImageData()
    taken = set(shared.values.values()) if shared else set()
    provenance = readReport(scan.segmentation).get("provenance", {})
    for label in missing:
        value = label.value if label.value not in taken else _freeValue(taken)
        taken.add(value)
        segment = newSegment(label, image, provenance)
        segment.SetLabelValue(value)
        segmentation.AddSegment(segment, label.name)


def _freeValue(taken: set[int]) -> int:
    """A value that no segment of the layer uses; 256 and more cannot occur, because a model has fewer labels."""
    return next(value for value in range(1, 256) if value not in taken)


def _moveOthersAway(scan: SegmentedScan, labels: np.ndarray, place: Box) -> None:
    """Give a segment of the reader's a layer of its own where an organ of the same layer is about to take a voxel."""
    for layer in layersOf(scan):
        table, others = _fromModel(layer, scan), _others(layer, scan)
        inside = layer.box.cut(place)
        if not table.any() or not others or inside.empty:
            continue
        present = layer.voxels()[inside.within(layer.box)]
        claimed = present[table[labels[inside.within(place)]] > 0]
        hit = set(np.unique(claimed).tolist())
        for name in others:
            if layer.values[name] in hit:
                scan.segmentation.GetSegmentation().SeparateSegmentLabelmap(name)


def _others(layer: Layer, scan: SegmentedScan) -> list[str]:
    return [name for name in layer.values if scan.label(name) is None]


def _ofOthers(layer: Layer, scan: SegmentedScan) -> np.ndarray:
    return valueTable({layer.values[name]: 1 for name in _others(layer, scan)})


def _toModel(layer: Layer, scan: SegmentedScan) -> np.ndarray:
    return valueTable({layer.values[label.name]: label.value for label in _organsIn(layer, scan)})


def _fromModel(layer: Layer, scan: SegmentedScan) -> np.ndarray:
    return valueTable({label.value: layer.values[label.name] for label in _organsIn(layer, scan)})


def _organsIn(layer: Layer, scan: SegmentedScan) -> Iterable[LabelDefinition]:
    return [label for label in scan.labels if label.name in layer.values]


def _countOutside(layer: Layer, box: Box, table: np.ndarray) -> int:
    drawn = lookUp(table, layer.voxels()) > 0
    inside = drawn[layer.box.cut(box).within(layer.box)]
    return int(np.count_nonzero(drawn) - np.count_nonzero(inside))
