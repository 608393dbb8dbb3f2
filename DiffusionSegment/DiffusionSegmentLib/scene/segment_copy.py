"""Segments that a step made for the reader, kept small so that undo can take them away and redo bring them back."""

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
    """A segment: its id, name, colour and tags in `about`, and its voxels, of those of `box`; None when it is empty."""

    segmentId: str
    about: slicer.vtkSegment
    box: Box | None
    mask: PackedArray | None

    @property
    def bytes(self) -> int:
        """Compressed size of its voxels."""
        return len(self.mask.data) if self.mask is not None else 0


def copySegment(scan: SegmentedScan, segmentId: str) -> SegmentCopy | None:
    """A segment as it is now; None where there is no such segment.

    Raises:
        DiffusionSegmentError: INPUT_MISSING or GEOMETRY, see `layersOf`.
    """
    segment = scan.segmentation.GetSegmentation().GetSegment(segmentId)
    if segment is None:
        return None
    about = slicer.vtkSegment()
    about.DeepCopyMetadata(segment)
    about.SetLabelValue(1)
    for layer in layersOf(scan):
        if segmentId not in layer.values:
            continue
        mask = layer.voxels() == layer.values[segmentId]
        place = boxAround(mask)
        if place is not None:
            k, j, i = (int(n) for n in np.add(layer.box.start, place.start))
            voxels = mask[place.slices].astype(np.uint8)
            return SegmentCopy(segmentId, about, Box.ofShape(place.shape, (k, j, i)), pack(voxels))
    return SegmentCopy(segmentId, about, None, None)


def removeSegment(scan: SegmentedScan, segmentId: str) -> None:
    """Take a segment with its voxels away; nothing happens where there is no such segment."""
    segmentation = scan.segmentation.GetSegmentation()
    if segmentation.GetSegment(segmentId) is not None:
        segmentation.RemoveSegment(segmentId)


def restoreSegment(scan: SegmentedScan, made: SegmentCopy) -> None:
    """Add a segment again, in a label map of its own; one of its id that is there stays as it is."""
    segmentation = scan.segmentation.GetSegmentation()
    if segmentation.GetSegment(made.segmentId) is not None:
        return
    segment = slicer.vtkSegment()
    segment.DeepCopyMetadata(made.about)
    image = slicer.vtkOrientedImageData()
    if made.mask is not None and made.box is not None:
        image = orientedImage(made.mask.unpack(), scan.input, start=made.box.start)
    segment.AddRepresentation(BINARY, image)
    segmentation.AddSegment(segment, made.segmentId)
