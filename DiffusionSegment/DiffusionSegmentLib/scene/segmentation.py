"""A label map as one segmentation node: standard names, colours and codes, the scan's geometry, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from .terminology import LabelDefinition

PROVENANCE_PREFIX = "DiffusionSegment."
_OWN_TAG = "DiffusionSegment.organ"


def putSegmentation(
    scene: slicer.vtkMRMLScene,
    labels: np.ndarray,
    definitions: Sequence[LabelDefinition],
    reference: slicer.vtkMRMLScalarVolumeNode,
    name: str,
    *,
    provenance: Mapping[str, object] | None = None,
    node: slicer.vtkMRMLSegmentationNode | None = None,
) -> slicer.vtkMRMLSegmentationNode:
    """Show `labels` (k, j, i), uint8, in the place of `reference`; an existing `node` gets new segments.

    Segments that the reader made in an existing node stay. Only organs that were found become segments. Provenance is
    stored on the node (MRB) and on each segment (.seg.nrrd).
    """
    if node is None:
        node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(reference)
    node.SetAndObserveTransformNodeID(reference.GetTransformNodeID())
    segmentation = node.GetSegmentation()
    image = orientedImage(labels, reference)
    present = valuesIn(labels)
    wasModified = node.StartModify()
    for name in _ownSegments(segmentation, {definition.name for definition in definitions}):
        # Without its voxels first: else they would be erased, one organ at a time, from the layer that it shares.
        segmentation.GetSegment(name).RemoveAllRepresentations()
        segmentation.RemoveSegment(name)
    segmentation.SetSourceRepresentationName(_binaryLabelmap())
    for definition in definitions:
        if definition.value in present:
            segmentation.AddSegment(newSegment(definition, image, provenance or {}), definition.name)
    keepProvenance(node, provenance or {})
    node.EndModify(wasModified)
    return node


def valuesIn(labels: np.ndarray) -> set[int]:
    """The values, other than 0, of a label map (uint8)."""
    flat = np.ascontiguousarray(labels, dtype=np.uint8).reshape(-1)
    whole = flat.size // 8 * 8
    # Most of a scan is no organ: eight voxels at a time are passed over.
    words = flat[:whole].view(np.uint64)
    drawn = words[words != 0].view(np.uint8)
    return set(np.unique(np.concatenate([drawn, flat[whole:]])).tolist()) - {0}


def keepProvenance(node: slicer.vtkMRMLSegmentationNode, provenance: Mapping[str, object]) -> None:
    """Store what made the segmentation as attributes of its node."""
    for key, value in provenance.items():
        node.SetAttribute(f"{PROVENANCE_PREFIX}{key}", str(value))


def _ownSegments(segmentation: slicer.vtkSegmentation, names: set[str]) -> list[str]:
    """Ids of the segments that this module made, for whichever model."""
    own = []
    for name in segmentation.GetSegmentIDs():
        if name in names or segmentation.GetSegment(name).HasTag(_OWN_TAG):
            own.append(name)
    return own


def showSurfaces(node: slicer.vtkMRMLSegmentationNode) -> None:
    """Make closed surfaces for the 3D views."""
    node.CreateClosedSurfaceRepresentation()
    node.GetDisplayNode().SetPreferredDisplayRepresentationName3D(
        slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    )


def _binaryLabelmap() -> str:
    return str(slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName())


def newSegment(
    definition: LabelDefinition, image: slicer.vtkOrientedImageData, provenance: Mapping[str, object]
) -> slicer.vtkSegment:
    """A segment with the organ's name, colour and codes, and its label value in `image`, which it shares."""
    segment = slicer.vtkSegment()
    segment.SetName(definition.title)
    segment.SetColor(*definition.colour)
    segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), definition.terminologyEntry)
    segment.SetTag(_OWN_TAG, definition.name)
    for key, value in provenance.items():
        segment.SetTag(f"{PROVENANCE_PREFIX}{key}", str(value))
    segment.SetLabelValue(definition.value)
    segment.AddRepresentation(_binaryLabelmap(), image)
    return segment


def orientedImage(
    labels: np.ndarray, reference: slicer.vtkMRMLScalarVolumeNode, *, start: tuple[int, int, int] = (0, 0, 0)
) -> slicer.vtkOrientedImageData:
    """One label map that all segments share, as Slicer does itself for segments that do not overlap.

    `labels` (k, j, i), uint8, begin at voxel `start` of `reference`.
    """
    image = slicer.vtkOrientedImageData()
    bounds = [(first, first + count - 1) for first, count in zip(start[::-1], labels.shape[::-1], strict=True)]
    image.SetExtent(*(number for pair in bounds for number in pair))
    scalars = numpy_to_vtk(np.ascontiguousarray(labels, dtype=np.uint8).ravel(), deep=True)
    scalars.SetName("labels")
    image.GetPointData().SetScalars(scalars)
    matrix = vtk.vtkMatrix4x4()
    reference.GetIJKToRASMatrix(matrix)
    image.SetGeometryFromImageToWorldMatrix(matrix)
    return image
