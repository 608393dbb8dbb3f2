"""The segmentation by a model of another program as a segmentation node, to be reviewed."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
import slicer
from DiffusionSegmentBackend.protocol.buffers import open_buffer
from DiffusionSegmentBackend.protocol.messages import Presegmented
from DiffusionSegmentBackend.schema.segment_matching import SegmentName, match_segments

from .segmentation import orientedImage
from .terminology import LabelDefinition, modelLabels

# Colours far apart for as many segments as there are.
_GOLDEN_RATIO = 0.618034
_SATURATION, _BRIGHTNESS = 0.5, 0.9


def putPresegmentation(
    scene: slicer.vtkMRMLScene,
    answer: Presegmented,
    reference: slicer.vtkMRMLScalarVolumeNode,
    definitions: Sequence[LabelDefinition],
) -> slicer.vtkMRMLSegmentationNode:
    """Put the label map of an answer into a new segmentation node; segments without a voxel too.

    Args:
        scene: receives the node.
        answer: labels on the voxels of `reference`, and the names of their values.
        reference: the scan.
        definitions: organs of a model, which give colour and codes to the segments with their names.
    """
    labels = np.array(open_buffer(answer.labels))
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{reference.GetName()} ({answer.title})")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(reference)
    node.SetAndObserveTransformNodeID(reference.GetTransformNodeID())
    image = orientedImage(labels, reference)
    representation = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    segmentation = node.GetSegmentation()
    segmentation.SetSourceRepresentationName(representation)
    organs = _organsByName(answer.names, definitions)
    for number, (value, name) in enumerate(zip(answer.values, answer.names, strict=True)):
        segment = slicer.vtkSegment()
        segment.SetName(name)
        segment.SetColor(*_colour(number))
        organ = organs.get(name)
        if organ is not None:
            segment.SetColor(*organ.colour)
            segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), organ.terminologyEntry)
        segment.SetLabelValue(value)
        segment.AddRepresentation(representation, image)
        segmentation.AddSegment(segment)
    return node


def _organsByName(names: Sequence[str], definitions: Sequence[LabelDefinition]) -> dict[str, LabelDefinition]:
    """The organ of each name that is one."""
    values = {definition.value: definition for definition in definitions}
    matching = match_segments([SegmentName(name=name) for name in names], modelLabels(definitions))
    return {
        name: values[match.value] for name, match in zip(names, matching.matches, strict=True) if match is not None
    }


def _colour(number: int) -> tuple[float, float, float]:
    return colorsys.hsv_to_rgb(number * _GOLDEN_RATIO % 1.0, _SATURATION, _BRIGHTNESS)
