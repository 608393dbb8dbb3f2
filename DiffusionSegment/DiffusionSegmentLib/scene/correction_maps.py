"""What the next correction needs, in hidden label maps, so that it is known after save and load too.

The labels as the model delivered them tell what the reader has edited since. The marks in force are all that he has
corrected so far: the worker applies them anew each time, so a mark that is not sent is a mark taken back.
"""

from __future__ import annotations

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from slicer.util import arrayFromVolume, arrayFromVolumeModified

from .box import Box
from .nodes import nodesOfClass
from .segmented_scan import SegmentedScan
from .volumes import RAS_FROM_LPS, ijkToLPS, setVoxels, toMatrix

RESULT_LABELS_ROLE = "DiffusionSegment.delivered"
SCRIBBLES_ROLE = "DiffusionSegment.marks"
_NAMES = {RESULT_LABELS_ROLE: "as delivered", SCRIBBLES_ROLE: "marks in force"}


def storeResultLabels(scan: SegmentedScan, labels: np.ndarray, *, box: Box | None = None, owned: bool = False) -> None:
    """Remember `labels`, uint8 (k, j, i), as delivered, for the whole volume or for `box` alone.

    Those that are `owned` by nobody else, of the whole volume, are kept without a copy.
    The node is found by a reference of the segmentation. Maps whose segmentation was deleted are taken away.

    Raises:
        DiffusionSegmentError: INPUT_MISSING or GEOMETRY for a `box` when there is no fitting copy yet.
    """
    if box is not None:
        resultLabels(scan)
    _keep(scan, RESULT_LABELS_ROLE, labels, box, owned=owned)


def resultLabels(scan: SegmentedScan) -> np.ndarray:
    """The labels as delivered, (k, j, i), a view that must not be written.

    Raises:
        DiffusionSegmentError: INPUT_MISSING when no copy was kept, GEOMETRY when it is one of another volume.
    """
    scan.check()
    array = _known(scan, RESULT_LABELS_ROLE)
    if array is None:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING,
            f"The model's result for {scan.segmentation.GetName()} is not known.",
            hint="Corrections need a segmentation made by this module: click Segment.",
        )
    return array


def storeScribbles(scan: SegmentedScan, marks: np.ndarray, *, box: Box | None = None) -> None:
    """Remember the marks in force, uint8 (k, j, i), for the whole volume or for `box` alone."""
    _keep(scan, SCRIBBLES_ROLE, marks, box)


def appliedScribbles(scan: SegmentedScan) -> np.ndarray:
    """The marks of all corrections applied so far, (k, j, i), not to be written: 0 none, 1 background, v + 1 label v.

    Raises:
        DiffusionSegmentError: INPUT_MISSING for deleted nodes, GEOMETRY when the marks are those of another volume.
    """
    scan.check()
    array = _known(scan, SCRIBBLES_ROLE)
    return array if array is not None else np.zeros(scan.box.shape, np.uint8)


def removeScribbles(scan: SegmentedScan) -> None:
    """A new result has heard no corrections."""
    node = scan.segmentation.GetNodeReference(SCRIBBLES_ROLE)
    if node is not None:
        scan.scene.RemoveNode(node)


def _keep(scan: SegmentedScan, role: str, labels: np.ndarray, box: Box | None, *, owned: bool = False) -> None:
    _sweep(scan.scene, role)
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
    # Hidden before it joins the scene: subject hierarchy decides at that moment.
    node.SetHideFromEditors(True)
    excluded = slicer.vtkMRMLSubjectHierarchyConstants.GetSubjectHierarchyExcludeFromTreeAttributeName()
    node.SetAttribute(excluded, "1")
    node.SetAttribute(role, "1")
    scan.scene.AddNode(node)
    scan.segmentation.SetNodeReferenceID(role, node.GetID())
    return node


def _known(scan: SegmentedScan, role: str) -> np.ndarray | None:
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
    view = array.view()
    view.flags.writeable = False
    return view


def _sweep(scene: slicer.vtkMRMLScene, role: str) -> None:
    """Remove maps that no segmentation refers to: they are hidden, so nobody else would."""
    owners = nodesOfClass(scene, "vtkMRMLSegmentationNode")
    owned = {node.GetNodeReferenceID(role) for node in owners}
    for node in nodesOfClass(scene, "vtkMRMLLabelMapVolumeNode"):
        if node.GetAttribute(role) and node.GetID() not in owned:
            scene.RemoveNode(node)
