"""The node with the settings and the selected segmentation of Segment Editor."""

import slicer

# The Segment Editor module of Slicer uses the node with this tag too, so that both show the same segmentation.
_SINGLETON_TAG = "SegmentEditor"


def segmentEditorNode(scene: slicer.vtkMRMLScene) -> slicer.vtkMRMLSegmentEditorNode:
    """The vtkMRMLSegmentEditorNode of the scene, created where there is none."""
    node = scene.GetSingletonNode(_SINGLETON_TAG, "vtkMRMLSegmentEditorNode")
    if node is None:
        node = slicer.vtkMRMLSegmentEditorNode()
        node.SetSingletonTag(_SINGLETON_TAG)
        node = scene.AddNode(node)
    return node
