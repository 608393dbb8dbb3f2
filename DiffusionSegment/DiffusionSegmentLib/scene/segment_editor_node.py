"""The node that keeps what a Segment Editor edits, and with which settings."""

import slicer

# Slicer's own Segment Editor module uses the node of this tag, so that both show the same segmentation.
_SINGLETON_TAG = "SegmentEditor"


def segmentEditorNode(scene: slicer.vtkMRMLScene) -> slicer.vtkMRMLSegmentEditorNode:
    """The scene's one vtkMRMLSegmentEditorNode, made where there is none."""
    node = scene.GetSingletonNode(_SINGLETON_TAG, "vtkMRMLSegmentEditorNode")
    if node is None:
        node = slicer.vtkMRMLSegmentEditorNode()
        node.SetSingletonTag(_SINGLETON_TAG)
        node = scene.AddNode(node)
    return node
