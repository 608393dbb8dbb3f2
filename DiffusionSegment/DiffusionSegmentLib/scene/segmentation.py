"""A label map as a segmentation node with names, colours, codes, geometry and provenance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import slicer
import vtk
from DiffusionSegmentBackend.schema.provenance import Provenance
from numpy.typing import NDArray
from vtk.util.numpy_support import numpy_to_vtk

from .terminology import LabelDefinition

PROVENANCE_PREFIX = "DiffusionSegment."
_ORGAN_TAG = "DiffusionSegment.organ"


def putSegmentation(
    scene: slicer.vtkMRMLScene,
    labels: NDArray[np.uint8],
    definitions: Sequence[LabelDefinition],
    reference: slicer.vtkMRMLScalarVolumeNode,
    name: str,
    *,
    provenance: Provenance | None = None,
    node: slicer.vtkMRMLSegmentationNode | None = None,
) -> slicer.vtkMRMLSegmentationNode:
    """Put a label map into a new segmentation node, or replace the organs of an existing one.

    User segments of an existing node stay. Only organs with voxels become segments.

    Args:
        scene: receives a new node.
        labels: uint8 (k, j, i) on the grid of `reference`.
        definitions: names, colours and codes of the label values.
        reference: volume with the geometry and the transform.
        name: of a new node.
        provenance: stored on the node (for MRB) and on each segment (for .seg.nrrd).
        node: an existing node.
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
    for name in _moduleSegments(segmentation, {definition.name for definition in definitions}):
        # Its representations first: otherwise its voxels would be erased from the shared layer, which is slow.
        segmentation.GetSegment(name).RemoveAllRepresentations()
        segmentation.RemoveSegment(name)
    segmentation.SetSourceRepresentationName(_binaryLabelmap())
    for definition in definitions:
        if definition.value in present:
            segmentation.AddSegment(newSegment(definition, image, provenance), definition.name)
    storeProvenance(node, provenance)
    node.EndModify(wasModified)
    return node


def valuesIn(labels: NDArray[np.uint8]) -> set[int]:
    """The values, other than 0, of a label map (uint8)."""
    flat = np.ascontiguousarray(labels, dtype=np.uint8).reshape(-1)
    whole = flat.size // 8 * 8
    # Most voxels are background: eight at a time are skipped.
    words = flat[:whole].view(np.uint64)
    drawn = words[words != 0].view(np.uint8)
    return set(np.unique(np.concatenate([drawn, flat[whole:]])).tolist()) - {0}


def storeProvenance(node: slicer.vtkMRMLSegmentationNode, provenance: Provenance | None) -> None:
    """Store provenance as attributes of the node."""
    for name, text in _provenanceTexts(provenance):
        node.SetAttribute(name, text)


def _provenanceTexts(provenance: Provenance | None) -> list[tuple[str, str]]:
    """Names and values of the attributes of a node, or the tags of a segment."""
    values = provenance.to_json() if provenance is not None else {}
    return [(f"{PROVENANCE_PREFIX}{key}", str(value)) for key, value in values.items()]


def _moduleSegments(segmentation: slicer.vtkSegmentation, names: set[str]) -> list[str]:
    """Ids of the segments that this module created, for any model."""
    ids = []
    for name in segmentation.GetSegmentIDs():
        if name in names or segmentation.GetSegment(name).HasTag(_ORGAN_TAG):
            ids.append(name)
    return ids


def showSurfaces(node: slicer.vtkMRMLSegmentationNode) -> None:
    """Make closed surfaces for the 3D views."""
    node.CreateClosedSurfaceRepresentation()
    node.GetDisplayNode().SetPreferredDisplayRepresentationName3D(
        slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    )


def _binaryLabelmap() -> str:
    return str(slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName())


def newSegment(
    definition: LabelDefinition, image: slicer.vtkOrientedImageData, provenance: Provenance | None
) -> slicer.vtkSegment:
    """A segment with name, colour and codes of an organ; its voxels are the label value in the shared `image`."""
    segment = slicer.vtkSegment()
    segment.SetName(definition.title)
    segment.SetColor(*definition.colour)
    segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), definition.terminologyEntry)
    segment.SetTag(_ORGAN_TAG, definition.name)
    for name, text in _provenanceTexts(provenance):
        segment.SetTag(name, text)
    segment.SetLabelValue(definition.value)
    segment.AddRepresentation(_binaryLabelmap(), image)
    return segment


def orientedImage(
    labels: NDArray[np.uint8], reference: slicer.vtkMRMLScalarVolumeNode, *, start: tuple[int, int, int] = (0, 0, 0)
) -> slicer.vtkOrientedImageData:
    """A label map shared by all segments, as Slicer stores segments that do not overlap.

    `labels` (k, j, i), uint8, start at voxel `start` (k, j, i) of `reference`.
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
