"""The point of the section "Similar voxels": one markups node for each scan."""

from __future__ import annotations

import slicer

POINT_ROLE = "DiffusionSegment.similarPointOf"
_NAME = "Similar voxels"
_COLOUR = (0.35, 0.95, 0.85)
_GLYPH_PERCENT = 1.5


def findSimilarPoint(inputNode: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLMarkupsFiducialNode | None:
    """The markups node of a scan, also in a loaded scene; None before the first point is placed."""
    scene = inputNode.GetScene()
    count = scene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode") if scene is not None else 0
    nodes = [scene.GetNthNodeByClass(n, "vtkMRMLMarkupsFiducialNode") for n in range(count)]
    return next((node for node in nodes if node.GetNodeReferenceID(POINT_ROLE) == inputNode.GetID()), None)


def placeSimilarPoint(inputNode: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLMarkupsFiducialNode:
    """Start placing: the next click in a view sets the point of a scan, and replaces an earlier one."""
    scene = inputNode.GetScene()
    node = findSimilarPoint(inputNode) or _newPoint(inputNode)
    node.SetAndObserveTransformNodeID(inputNode.GetTransformNodeID())
    node.RemoveAllControlPoints()
    selection = scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
    interaction = scene.GetFirstNodeByClass("vtkMRMLInteractionNode")
    selection.SetReferenceActivePlaceNodeClassName("vtkMRMLMarkupsFiducialNode")
    selection.SetActivePlaceNodeID(node.GetID())
    interaction.SwitchToSinglePlaceMode()
    return node


def similarPointLPS(node: slicer.vtkMRMLMarkupsFiducialNode) -> tuple[float, float, float] | None:
    """The point in LPS mm of the world, parent transforms applied; None until it is placed."""
    if not node.GetNumberOfControlPoints() or node.GetNthControlPointPositionStatus(0) != node.PositionDefined:
        return None
    right, anterior, superior = node.GetNthControlPointPositionWorld(0)
    return -right, -anterior, superior


def _newPoint(inputNode: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLMarkupsFiducialNode:
    node = inputNode.GetScene().AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", _NAME)
    node.SetNodeReferenceID(POINT_ROLE, inputNode.GetID())
    node.SetMaximumNumberOfControlPoints(1)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetColor(*_COLOUR)
    display.SetSelectedColor(*_COLOUR)
    display.SetGlyphScale(_GLYPH_PERCENT)
    display.SetPointLabelsVisibility(False)
    display.SetPropertiesLabelVisibility(False)
    return node
