"""How a new result is merged with the existing segmentation."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray

from .segmented_scan import SegmentedScan

LOCKED_TAG = "DiffusionSegment.locked"


class MergePolicy(Enum):
    """How a new result is merged. Saved scenes contain the names of the members, which are never renamed."""

    NEW = "New segmentation"
    REPLACE = "Replace the last result"
    FILL_EMPTY = "Fill only what is empty"
    RESPECT_LOCKED = "Replace all but locked organs"

    def label(self) -> str:
        """The text in the panel, in the language of the application."""
        from slicer.i18n import tr as _

        texts: dict[MergePolicy, str] = {
            MergePolicy.NEW: _("New segmentation"),
            MergePolicy.REPLACE: _("Replace the last result"),
            MergePolicy.FILL_EMPTY: _("Fill only what is empty"),
            MergePolicy.RESPECT_LOCKED: _("Replace all but locked organs"),
        }
        return texts[self]


def merged(
    present: NDArray[np.uint8], arriving: NDArray[np.uint8], policy: MergePolicy, locked: Iterable[int] = ()
) -> NDArray[np.uint8]:
    """Merge a new label map into the existing one.

    A locked label neither loses nor gains a voxel. FILL_EMPTY keeps every voxel that has a label; locked labels do not
    grow either.

    Args:
        present: existing labels, uint8 (k, j, i).
        arriving: new labels of the same shape.
        policy: how they are merged.
        locked: label values that do not change.

    Raises:
        ValueError: for different shapes.
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

    Slicer has no locked segments: vtkSegment has no such flag, the masking settings of Segment Editor belong to the
    editor, and the status of a segment (such as Completed) protects nothing. The lock is therefore a tag of the
    segment, saved in .seg.nrrd and scenes. It applies to what this module writes, not to Segment Editor, and is
    independent of Completed, which the review sets.
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
