"""A label map as one segmentation node: standard names, colours and codes, the scan's geometry, provenance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from .terminology import LabelDefinition

PROVENANCE_PREFIX = "DiffusionSegment."


def putSegmentation(
    scene: slicer.vtkMRMLScene,
    labels: np.ndarray,
    definitions: Iterable[LabelDefinition],
    reference: slicer.vtkMRMLScalarVolumeNode,
    name: str,
    *,
    provenance: Mapping[str, object] | None = None,
    node: slicer.vtkMRMLSegmentationNode | None = None,
) -> slicer.vtkMRMLSegmentationNode:
    """Show `labels` (k, j, i), uint8, in the place of `reference`; an existing `node` gets new segments.

    Only organs that were found become segments. Provenance is stored on the node (MRB) and on each segment (.seg.nrrd).
    """
    if node is None:
        node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(reference)
    node.SetAndObserveTransformNodeID(reference.GetTransformNodeID())
    segmentation = node.GetSegmentation()
    image = _orientedImage(labels, reference)
    present = set(np.unique(labels).tolist())
    wasModified = node.StartModify()
    segmentation.RemoveAllSegments()
    segmentation.SetSourceRepresentationName(_binaryLabelmap())
    for definition in definitions:
        if definition.value in present:
            segmentation.AddSegment(_segment(definition, image, provenance or {}), definition.name)
    for key, value in (provenance or {}).items():
        node.SetAttribute(f"{PROVENANCE_PREFIX}{key}", str(value))
    node.EndModify(wasModified)
    return node


def showSurfaces(node: slicer.vtkMRMLSegmentationNode) -> None:
    """Make closed surfaces for the 3D views."""
    node.CreateClosedSurfaceRepresentation()
    node.GetDisplayNode().SetPreferredDisplayRepresentationName3D(
        slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    )


def _binaryLabelmap() -> str:
    return str(slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName())


def _segment(
    definition: LabelDefinition, image: slicer.vtkOrientedImageData, provenance: Mapping[str, object]
) -> slicer.vtkSegment:
    segment = slicer.vtkSegment()
    segment.SetName(definition.title)
    segment.SetColor(*definition.colour)
    segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), definition.terminologyEntry)
    for key, value in provenance.items():
        segment.SetTag(f"{PROVENANCE_PREFIX}{key}", str(value))
    segment.SetLabelValue(definition.value)
    segment.AddRepresentation(_binaryLabelmap(), image)
    return segment


def _orientedImage(labels: np.ndarray, reference: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkOrientedImageData:
    """One label map that all segments share, as Slicer does itself for segments that do not overlap."""
    image = slicer.vtkOrientedImageData()
    depth, height, width = labels.shape
    image.SetDimensions(width, height, depth)
    scalars = numpy_to_vtk(np.ascontiguousarray(labels, dtype=np.uint8).ravel(), deep=True)
    scalars.SetName("labels")
    image.GetPointData().SetScalars(scalars)
    matrix = vtk.vtkMatrix4x4()
    reference.GetIJKToRASMatrix(matrix)
    image.SetGeometryFromImageToWorldMatrix(matrix)
    return image
