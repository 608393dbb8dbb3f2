"""Preview of a segmentation before the refinement; it is removed when the run ends."""

from __future__ import annotations

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.buffers import open_buffer
from DiffusionSegmentBackend.protocol.messages import Preview

from .nodes import nodesOfClass
from .segmentation import putSegmentation
from .terminology import ModelDescription

# An attribute, not a reference to the input: a reference would be lost when the input is removed.
_PREVIEW = "DiffusionSegment.preview"
_OPACITY = 0.5


def showPreview(
    message: Preview, inputNode: slicer.vtkMRMLScalarVolumeNode, model: ModelDescription
) -> slicer.vtkMRMLSegmentationNode:
    """Show a preview of the segmentation of an input volume, paler than a result; it is not saved with the scene.

    An earlier preview is removed. The buffer of the message is not needed afterwards.

    Raises:
        DiffusionSegmentError: INPUT_MISSING when the input volume has left the scene, GEOMETRY when its size has
            changed since; PROTOCOL for a damaged buffer.
    """
    scene = inputNode.GetScene()
    if scene is None:
        raise DiffusionSegmentError(ErrorCode.INPUT_MISSING, "The input volume is no longer in the scene.", hint="")
    # A copy: the file is deleted after the message was handled.
    labels = np.array(open_buffer(message.labels))
    width, height, depth = inputNode.GetImageData().GetDimensions()
    if labels.shape != (depth, height, width):
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY, "The input volume has changed since the click.", hint="Click Segment again."
        )
    removePreview(scene)
    node = putSegmentation(scene, labels, model.labels, inputNode, f"{inputNode.GetName()} preview")
    node.SetAttribute(_PREVIEW, inputNode.GetName())
    node.SaveWithSceneOff()
    node.GetDisplayNode().SaveWithSceneOff()
    node.GetDisplayNode().SetOpacity(_OPACITY)
    return node


def removePreview(scene: slicer.vtkMRMLScene) -> None:
    """Remove the preview with its display nodes, if there is one."""
    for node in nodesOfClass(scene, "vtkMRMLSegmentationNode"):
        if node.GetAttribute(_PREVIEW) is not None:
            for n in reversed(range(node.GetNumberOfDisplayNodes())):
                scene.RemoveNode(node.GetNthDisplayNode(n))
            scene.RemoveNode(node)
