"""What becomes of the segmentation that is there when a result arrives."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import numpy as np
import slicer
import vtk

from .segmented_scan import SegmentedScan

LOCKED_TAG = "DiffusionSegment.locked"


class MergePolicy(Enum):
    """How an arriving result meets the present one. Saved scenes keep the name, so members are never renamed."""

    NEW = "New segmentation"
    REPLACE = "Replace the last result"
    FILL_EMPTY = "Fill only what is empty"
    RESPECT_LOCKED = "Replace all but locked organs"

    def label(self) -> str:
        """The text in the panel, in the language of the application."""
        from slicer.i18n import tr as _

        return {
            MergePolicy.NEW: _("New segmentation"),
            MergePolicy.REPLACE: _("Replace the last result"),
            MergePolicy.FILL_EMPTY: _("Fill only what is empty"),
            MergePolicy.RESPECT_LOCKED: _("Replace all but locked organs"),
        }[self]


def merged(present: np.ndarray, arriving: np.ndarray, policy: MergePolicy, locked: Iterable[int] = ()) -> np.ndarray:
    """The labels (k, j, i), uint8, after `arriving` met `present`, both uint8 of one shape.

    A locked label neither loses nor gains a voxel: what arrives as locked elsewhere leaves the voxel as it is.
    FILL_EMPTY keeps every voxel that has a label, and heeds `locked` too, so that an organ that is done does not grow.

    Raises:
        ValueError: for two shapes.
    """
    if present.shape != arriving.shape:
        raise ValueError(f"Labels of shape {present.shape} and {arriving.shape} cannot be merged.")
    if policy in (MergePolicy.NEW, MergePolicy.REPLACE):
        return arriving.copy()
    kept = np.zeros(256, bool)
    kept[list(locked)] = True
    keep = kept[present] | kept[arriving]
    if policy is MergePolicy.FILL_EMPTY:
        keep |= present > 0
    return np.where(keep, present, arriving)


def setLocked(segmentation: slicer.vtkMRMLSegmentationNode, name: str, locked: bool) -> None:
    """Lock or unlock the segment with the id `name`; nothing happens where there is no such segment.

    Slicer itself knows no locked segments: vtkSegment has no such flag; Segment Editor protects others by its masking
    settings ("Editable area", "Modify other segments"), which belong to the editor; and a segment's status (Completed
    and so on) restrains nothing. So the lock is a tag of our own on the segment, saved in .seg.nrrd and scenes. It
    binds what this module writes, not Segment Editor. It is apart from Completed, because review sets that by itself.
    """
    segment = segmentation.GetSegmentation().GetSegment(name)
    if segment is None:
        return
    if locked:
        segment.SetTag(LOCKED_TAG, "1")
    else:
        segment.RemoveTag(LOCKED_TAG)


def isLocked(segmentation: slicer.vtkMRMLSegmentationNode, name: str) -> bool:
    """Whether the segment with the id `name` exists and is locked."""
    segment = segmentation.GetSegmentation().GetSegment(name)
    value = vtk.reference("")
    return segment is not None and bool(segment.GetTag(LOCKED_TAG, value)) and str(value) == "1"


def lockedValues(scan: SegmentedScan) -> tuple[int, ...]:
    """The model's label values whose segments are locked."""
    return tuple(label.value for label in scan.labels if isLocked(scan.segmentation, label.name))
