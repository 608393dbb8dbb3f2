"""Compressed copies of segments, with which undo removes and redo restores the segments that a step created."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer

from .box import Box, boxAround
from .layers import BINARY, layersOf
from .packed_array import PackedArray, pack
from .segmentation import orientedImage
from .segmented_scan import SegmentedScan


@dataclass(frozen=True)
class SegmentCopy:
    """A copy of a segment: id, `metadata` (name, colour, tags), voxels of `box`; None when it is empty."""

    segmentId: str
    metadata: slicer.vtkSegment
    box: Box | None
    mask: PackedArray | None

    @property
    def bytes(self) -> int:
        """Compressed size of the voxels."""
        return len(self.mask.data) if self.mask is not None else 0


def copySegment(scan: SegmentedScan, segmentId: str) -> SegmentCopy | None:
    """A copy of a segment; None where there is no such segment.

    Raises:
        DiffusionSegmentError: INPUT_MISSING or GEOMETRY, see `layersOf`.
    """
    segment = scan.segmentation.GetSegmentation().GetSegment(segmentId)
    if segment is None:
        return None
    metadata = slicer.vtkSegment()
    metadata.DeepCopyMetadata(segment)
    metadata.SetLabelValue(1)
    for layer in layersOf(scan):
        if segmentId not in layer.values:
            continue
        mask = layer.voxels() == layer.values[segmentId]
        inner = boxAround(mask)
        if inner is not None:
            k, j, i = (int(n) for n in np.add(layer.box.start, inner.start))
            voxels = mask[inner.slices].astype(np.uint8)
            return SegmentCopy(segmentId, metadata, Box.ofShape(inner.shape, (k, j, i)), pack(voxels))
    return SegmentCopy(segmentId, metadata, None, None)


def removeSegment(scan: SegmentedScan, segmentId: str) -> None:
    """Remove a segment with its voxels, if it exists."""
    segmentation = scan.segmentation.GetSegmentation()
    if segmentation.GetSegment(segmentId) is not None:
        segmentation.RemoveSegment(segmentId)


def restoreSegment(scan: SegmentedScan, copy: SegmentCopy) -> None:
    """Add a copied segment in a separate label map; an existing segment with its id is not changed."""
    segmentation = scan.segmentation.GetSegmentation()
    if segmentation.GetSegment(copy.segmentId) is not None:
        return
    segment = slicer.vtkSegment()
    segment.DeepCopyMetadata(copy.metadata)
    image = slicer.vtkOrientedImageData()
    if copy.mask is not None and copy.box is not None:
        image = orientedImage(copy.mask.unpack(), scan.input, start=copy.box.start)
    segment.AddRepresentation(BINARY, image)
    segmentation.AddSegment(segment, copy.segmentId)
