"""What the networks say before they refine, as a segmentation of its own until the result takes its place."""

from __future__ import annotations

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.buffers import open_buffer
from DiffusionSegmentBackend.protocol.messages import Preview

from .nodes import nodesOfClass
from .segmentation import putSegmentation
from .terminology import ModelDescription

# No reference to the input: that would be lost with the input, and the preview must go then.
_PREVIEW = "DiffusionSegment.preview"
_OPACITY = 0.5


def showPreview(
    message: Preview, inputNode: slicer.vtkMRMLScalarVolumeNode, model: ModelDescription
) -> slicer.vtkMRMLSegmentationNode:
    """Show a preview beside its input volume, paler than a result; its buffer is not needed afterwards.

    The preview before is taken away. Scenes are saved without it.

    Raises:
        DiffusionSegmentError: INPUT_MISSING when the input volume has left the scene, GEOMETRY when it has changed its
            size since; PROTOCOL for a damaged buffer.
    """
    scene = inputNode.GetScene()
    if scene is None:
        raise DiffusionSegmentError(ErrorCode.INPUT_MISSING, "The input volume is no longer in the scene.", hint="")
    # A copy: the file goes when the message was heard.
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
    """Take the preview away, with its display; nothing happens where there is none."""
    for node in nodesOfClass(scene, "vtkMRMLSegmentationNode"):
        if node.GetAttribute(_PREVIEW) is not None:
            for n in reversed(range(node.GetNumberOfDisplayNodes())):
                scene.RemoveNode(node.GetNthDisplayNode(n))
            scene.RemoveNode(node)
