"""The regions of the review as points in the views, coloured by their states, the current region highlighted.

A markups node has one colour for all points that are not selected, so there is one node for each state.
"""

from __future__ import annotations

import slicer
from DiffusionSegmentBackend.schema.review_state import RegionState

from .review import Region, ReviewList
from .segmented_scan import SegmentedScan, pointInVolume

_ROLE = "DiffusionSegment.regions"
_COLOURS = {
    RegionState.OPEN: (1.0, 0.60, 0.15),
    RegionState.ACCEPTED: (0.30, 0.75, 0.35),
    RegionState.CORRECTED: (0.25, 0.60, 1.0),
    RegionState.FLAGGED: (0.90, 0.15, 0.20),
}
_CURRENT = (1.0, 1.0, 0.20)
_GLYPH_PERCENT = 1.5
_TEXT_PERCENT = 2.5


def updateRegionMarkups(
    scan: SegmentedScan, review: ReviewList
) -> dict[RegionState, slicer.vtkMRMLMarkupsFiducialNode]:
    """Update the points to the list; to be called after every change of the list.

    The segmentation refers to the nodes, also in a loaded scene; a state that never occurred has no node. Points are
    locked, have the transform of the input, and have the sentence of the region as their description.

    Returns:
        The node of each state that has one.

    Raises:
        DiffusionSegmentError: INPUT_MISSING or GEOMETRY when the nodes do not belong together.
    """
    scan.check()
    nodes = {}
    for state in RegionState:
        regions = [region for region in review.regions if region.state is state]
        node = scan.segmentation.GetNodeReference(f"{_ROLE}.{state.value}")
        if node is None and not regions:
            continue
        nodes[state] = node if node is not None else _newNode(scan, state)
        _fill(nodes[state], scan, regions, review.current)
    return nodes


def _fill(
    node: slicer.vtkMRMLMarkupsFiducialNode, scan: SegmentedScan, regions: list[Region], current: Region | None
) -> None:
    wasModified = node.StartModify()
    node.SetAndObserveTransformNodeID(scan.input.GetTransformNodeID())
    node.RemoveAllControlPoints()
    for region in regions:
        point = pointInVolume(scan, region.centroidLPS)
        index = node.AddControlPoint(*(float(value) for value in point), _name(region))
        node.SetNthControlPointDescription(index, region.sentence)
        node.SetNthControlPointSelected(index, current is not None and region.number == current.number)
        node.SetNthControlPointLocked(index, True)
    node.EndModify(wasModified)


def _name(region: Region) -> str:
    return f"{region.number + 1} {region.organ.replace('_', ' ')}"


def _newNode(scan: SegmentedScan, state: RegionState) -> slicer.vtkMRMLMarkupsFiducialNode:
    name = f"{scan.segmentation.GetName()} regions {state.value}"
    node = scan.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
    node.SetLocked(True)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetColor(*_COLOURS[state])
    display.SetSelectedColor(*_CURRENT)
    display.SetGlyphScale(_GLYPH_PERCENT)
    display.SetTextScale(_TEXT_PERCENT)
    display.SetPropertiesLabelVisibility(False)
    scan.segmentation.SetNodeReferenceID(f"{_ROLE}.{state.value}", node.GetID())
    return node
