"""Hidden label maps that the next correction needs; they are saved with the scene.

The labels of the last result show which voxels were edited since. The scribbles are those of all corrections so far:
the worker applies them anew each time, so a scribble that is not sent has no effect. The reviewed labels are what a
review was requested of.
"""

from __future__ import annotations

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from numpy.typing import NDArray
from slicer.util import arrayFromVolume, arrayFromVolumeModified

from .box import Box
from .nodes import nodesOfClass
from .segmented_scan import SegmentedScan, readReport
from .volumes import RAS_FROM_LPS, ijkToLPS, setVoxels, toMatrix

RESULT_LABELS_ROLE = "DiffusionSegment.delivered"
SCRIBBLES_ROLE = "DiffusionSegment.marks"
REVIEWED_ROLE = "DiffusionSegment.reviewed"
_NAMES = {RESULT_LABELS_ROLE: "last result", SCRIBBLES_ROLE: "applied scribbles", REVIEWED_ROLE: "reviewed labels"}


def storeResultLabels(
    scan: SegmentedScan, labels: NDArray[np.uint8], *, box: Box | None = None, owned: bool = False
) -> None:
    """Store the labels of a result in a hidden node that the segmentation refers to.

    Maps whose segmentation was deleted are removed from the scene.

    Args:
        scan: the segmented scan.
        labels: uint8 (k, j, i), of the whole volume or of `box`.
        box: the voxels to replace; default: the whole volume.
        owned: the caller does not use `labels` any more, so that labels of the whole volume need no copy.

    Raises:
        DiffusionSegmentError: INPUT_MISSING or GEOMETRY for a `box` without a stored map of the volume.
    """
    if box is not None:
        resultLabels(scan)
    _store(scan, RESULT_LABELS_ROLE, labels, box, owned=owned)


def resultLabels(scan: SegmentedScan) -> NDArray[np.uint8]:
    """The labels of the last result, (k, j, i), a read-only view.

    Raises:
        DiffusionSegmentError: INPUT_MISSING when none are stored, GEOMETRY when they are those of another volume.
    """
    scan.check()
    array = _stored(scan, RESULT_LABELS_ROLE)
    if array is None:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING,
            f"The model's result for {scan.segmentation.GetName()} is unknown.",
            hint="Corrections need a segmentation made by this module: click Segment.",
        )
    return array


def storeScribbles(scan: SegmentedScan, scribbles: NDArray[np.uint8], *, box: Box | None = None) -> None:
    """Store the scribbles of all corrections so far, uint8 (k, j, i), of the whole volume or of `box`."""
    _store(scan, SCRIBBLES_ROLE, scribbles, box)


def appliedScribbles(scan: SegmentedScan) -> NDArray[np.uint8]:
    """The scribbles of all corrections so far, (k, j, i), a read-only view: 0 none, 1 background, v + 1 label v.

    Raises:
        DiffusionSegmentError: INPUT_MISSING for deleted nodes, GEOMETRY when the scribbles are those of another volume.
    """
    scan.check()
    array = _stored(scan, SCRIBBLES_ROLE)
    return array if array is not None else np.zeros(scan.box.shape, np.uint8)


def removeScribbles(scan: SegmentedScan) -> None:
    """Remove the scribbles: no corrections were applied to a new result."""
    node = scan.segmentation.GetNodeReference(SCRIBBLES_ROLE)
    if node is not None:
        scan.scene.RemoveNode(node)


def storeReviewed(scan: SegmentedScan, labels: NDArray[np.uint8]) -> None:
    """Store the labels (k, j, i), uint8, that a review was requested of, other structures included."""
    _store(scan, REVIEWED_ROLE, labels, None)


def reviewedMaps(scan: SegmentedScan) -> dict[str, NDArray[np.uint8]]:
    """The field `reviewed` of a request that continues a review: its labels; empty for a segmentation of the model's.

    Raises:
        DiffusionSegmentError: INPUT_MISSING when the labels were deleted, GEOMETRY when they are those of another
            volume, INPUT_UNREADABLE for a damaged report.
    """
    if readReport(scan.segmentation).reviewed is None:
        return {}
    array = _stored(scan, REVIEWED_ROLE)
    if array is None:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING,
            f"What was reviewed in {scan.segmentation.GetName()} is no longer in the scene.",
            hint="Review the segmentation again.",
        )
    return {"reviewed": array}


def _store(scan: SegmentedScan, role: str, labels: NDArray[np.uint8], box: Box | None, *, owned: bool = False) -> None:
    _removeOrphans(scan.scene, role)
    node = scan.segmentation.GetNodeReference(role)
    if node is None:
        node = _hiddenNode(scan, role)
    node.SetIJKToRASMatrix(toMatrix(RAS_FROM_LPS @ ijkToLPS(scan.input)))
    node.SetAndObserveTransformNodeID(scan.input.GetTransformNodeID())
    fits = node.GetImageData() is not None and arrayFromVolume(node).shape == scan.box.shape
    if box is None and (owned or not fits):
        setVoxels(node, labels if owned else np.array(labels, np.uint8))
        return
    if not fits:
        setVoxels(node, np.zeros(scan.box.shape, np.uint8))
    arrayFromVolume(node)[scan.box.slices if box is None else box.slices] = labels
    arrayFromVolumeModified(node)


def _hiddenNode(scan: SegmentedScan, role: str) -> slicer.vtkMRMLLabelMapVolumeNode:
    node = scan.scene.CreateNodeByClass("vtkMRMLLabelMapVolumeNode")
    node.UnRegister(None)
    node.SetName(f"{scan.segmentation.GetName()} {_NAMES[role]}")
    # Hidden before it is added to the scene: subject hierarchy decides at that moment.
    node.SetHideFromEditors(True)
    excluded = slicer.vtkMRMLSubjectHierarchyConstants.GetSubjectHierarchyExcludeFromTreeAttributeName()
    node.SetAttribute(excluded, "1")
    node.SetAttribute(role, "1")
    scan.scene.AddNode(node)
    scan.segmentation.SetNodeReferenceID(role, node.GetID())
    return node


def _stored(scan: SegmentedScan, role: str) -> NDArray[np.uint8] | None:
    node = scan.segmentation.GetNodeReference(role)
    if node is None or node.GetImageData() is None:
        return None
    array = arrayFromVolume(node)
    if array.shape != scan.box.shape or not np.allclose(ijkToLPS(node), ijkToLPS(scan.input), atol=1e-3):
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY,
            f"{scan.segmentation.GetName()} was made from another volume than {scan.input.GetName()}.",
            hint="Choose the volume that was segmented.",
        )
    view: NDArray[np.uint8] = array.view()
    view.flags.writeable = False
    return view


def _removeOrphans(scene: slicer.vtkMRMLScene, role: str) -> None:
    """Remove maps that no segmentation refers to: being hidden, they could not be removed by the user."""
    owners = nodesOfClass(scene, "vtkMRMLSegmentationNode")
    referenced = {node.GetNodeReferenceID(role) for node in owners}
    for node in nodesOfClass(scene, "vtkMRMLLabelMapVolumeNode"):
        if node.GetAttribute(role) and node.GetID() not in referenced:
            scene.RemoveNode(node)
