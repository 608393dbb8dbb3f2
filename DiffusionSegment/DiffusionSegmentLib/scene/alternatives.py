"""Alternatives of the regions to review: show one as outlines beside the segmentation, and use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.buffers import geometry_of, open_buffer
from DiffusionSegmentBackend.protocol.messages import Corrected, RegionAlternatives, Result
from DiffusionSegmentBackend.schema.region_alternative import RegionAlternative
from numpy.typing import NDArray

from .box import Box, boxAround, boxOfGrid
from .correction_maps import appliedScribbles
from .label_map import readLabels, writeLabels
from .layers import valueTable
from .merge_policy import lockedValues
from .packed_array import PackedArray, pack
from .review import Region
from .segmentation import newSegment, orientedImage
from .segmented_scan import SegmentedScan
from .volumes import volumeBuffer

PREVIEW_ROLE = "DiffusionSegment.alternativeOf"
_OUTLINE_PIXELS = 3
# Share of white in the colour of an outline, which distinguishes it from that of the segmentation.
_WHITE = 0.5
# The messages give centroids in LPS mm, rounded to 0.1 mm.
_SAME_CENTROID_MM = 0.1


@dataclass(frozen=True)
class Alternative:
    """Other labels of some voxels of a region: `marks` (k, j, i), uint8, in `box`, k + 1 for label k, else 0.

    `probability` is 0..1, `volumeMl` that of the voxels with a mark.
    """

    marks: PackedArray
    box: Box
    probability: float
    volumeMl: float
    sentence: str


@dataclass(frozen=True)
class AlternativeList:
    """The alternatives of each region to review, most likely first, by the centroid of the region.

    They are kept in memory only; a loaded scene requests them again.
    """

    regions: tuple[tuple[tuple[float, float, float], tuple[Alternative, ...]], ...]

    def ofRegion(self, region: Region) -> tuple[Alternative, ...] | None:
        """The alternatives of a region; None for a region of another list, whose alternatives are unknown."""
        for centroid, alternatives in self.regions:
            if np.abs(np.subtract(centroid, region.centroidLPS)).max() < _SAME_CENTROID_MM:
                return alternatives
        return None


def keepAlternatives(scan: SegmentedScan, answer: Result | Corrected | RegionAlternatives) -> AlternativeList:
    """Copy the alternatives from the buffer of the worker, which is deleted afterwards.

    Raises:
        DiffusionSegmentError: INPUT_MISSING for deleted nodes, GEOMETRY when the scan was moved since or the marks
            reach beyond it, PROTOCOL or INPUT_MISSING for a damaged answer.
    """
    scan.check()
    entries = [entry for region in answer.alternatives for entry in region.alternatives]
    kept = iter(_alternatives(scan, entries, answer))
    return AlternativeList(
        tuple(
            (region.centroid_lps_mm, tuple(next(kept) for _ in region.alternatives)) for region in answer.alternatives
        )
    )


def _alternatives(
    scan: SegmentedScan, entries: Sequence[RegionAlternative], answer: Result | Corrected | RegionAlternatives
) -> list[Alternative]:
    reference = answer.alternative_marks
    if reference is None and not entries:
        return []
    if reference is None or len(reference.shape) != 4 or reference.shape[0] != len(entries):
        raise DiffusionSegmentError(ErrorCode.PROTOCOL, "The alternatives do not fit their marks.", hint="Ask again.")
    marks = open_buffer(reference)
    grid = volumeBuffer(scan.input)[1]
    boxOfGrid(scan.box.shape, geometry_of(reference), grid, what="The list of alternatives")
    alternatives = []
    for entry, array in zip(entries, marks, strict=True):
        inner = boxAround(array)
        if inner is None:
            raise DiffusionSegmentError(ErrorCode.PROTOCOL, "An alternative marks no voxel.", hint="Ask again.")
        k, j, i = (int(n) for n in np.add(entry.start_ijk[::-1], inner.start))
        box = Box.ofShape(inner.shape, (k, j, i))
        if min(entry.start_ijk) < 0 or not scan.box.contains(box):
            raise DiffusionSegmentError(
                ErrorCode.GEOMETRY, "The alternatives reach beyond the scan.", hint="Ask again."
            )
        packed = pack(array[inner.slices])
        alternatives.append(Alternative(packed, box, entry.probability, entry.volume_ml, entry.sentence))
    return alternatives


def useAlternative(scan: SegmentedScan, alternative: Alternative) -> Box | None:
    """Write the labels of an alternative into the segmentation: a correction without painting.

    Only marked voxels change. Locked organs, user segments and voxels that were corrected with scribbles do not. The
    stored result labels do not change, so that the change later counts as an edit.

    Returns:
        The box of the changed voxels; None when nothing changed.

    Raises:
        DiffusionSegmentError: INPUT_MISSING, GEOMETRY as `writeLabels`.
    """
    present = readLabels(scan, box=alternative.box).labels
    wanted = _labelsWith(scan, alternative, present)
    changed = boxAround(wanted != present)
    if changed is None:
        return None
    k, j, i = (int(n) for n in np.add(alternative.box.start, changed.start))
    box = Box.ofShape(changed.shape, (k, j, i))
    writeLabels(scan, wanted[changed.slices], box=box)
    return box


def showAlternative(scan: SegmentedScan, alternative: Alternative, name: str) -> slicer.vtkMRMLSegmentationNode:
    """Show the outlines that the organs would have with an alternative, in a node `name` that is not saved.

    Of the organs that gain or lose voxels, the whole outline is shown, in a lighter colour than the segmentation's.

    Raises:
        DiffusionSegmentError: INPUT_MISSING, GEOMETRY as `readLabels`.
    """
    labels = readLabels(scan, shared=True).labels
    present = labels[alternative.box.slices]
    wanted = _labelsWith(scan, alternative, present)
    changed = wanted != present
    affected = set(np.unique([present[changed], wanted[changed]]).tolist()) - {0}
    table = valueTable({value: value for value in affected})
    shown = table[labels]
    shown[alternative.box.slices] = table[wanted]
    box = boxAround(shown) or alternative.box
    node = _previewNode(scan) or _newPreview(scan)
    node.SetName(name)
    node.SetAndObserveTransformNodeID(scan.input.GetTransformNodeID())
    wasModified = node.StartModify()
    segmentation = node.GetSegmentation()
    segmentation.RemoveAllSegments()
    image = orientedImage(shown[box.slices], scan.input, start=box.start)
    for label in scan.labels:
        if label.value in affected and np.any(shown[box.slices] == label.value):
            segment = newSegment(label, image, None)
            segment.SetColor(*(_WHITE + (1 - _WHITE) * share for share in label.colour))
            segmentation.AddSegment(segment, label.name)
    node.EndModify(wasModified)
    return node


def hideAlternative(scan: SegmentedScan) -> None:
    """Remove the outlines, if any are shown."""
    node = _previewNode(scan)
    if node is not None:
        scene = node.GetScene()
        scene.RemoveNode(node.GetDisplayNode())
        scene.RemoveNode(node)


def _labelsWith(scan: SegmentedScan, alternative: Alternative, present: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The labels inside the box of an alternative after its use."""
    marks = alternative.marks.unpack()
    labels = np.where(marks > 0, marks - 1, present).astype(np.uint8)
    locked = np.zeros(256, bool)
    locked[list(lockedValues(scan))] = True
    kept = locked[present] | locked[labels] | (appliedScribbles(scan)[alternative.box.slices] > 0)
    return np.where(kept, present, labels)


def _previewNode(scan: SegmentedScan) -> slicer.vtkMRMLSegmentationNode | None:
    scene = scan.scene
    count = scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") if scene is not None else 0
    nodes = [scene.GetNthNodeByClass(n, "vtkMRMLSegmentationNode") for n in range(count)]
    return next((n for n in nodes if n.GetNodeReferenceID(PREVIEW_ROLE) == scan.segmentation.GetID()), None)


def _newPreview(scan: SegmentedScan) -> slicer.vtkMRMLSegmentationNode:
    scene = scan.scene
    node = scene.CreateNodeByClass("vtkMRMLSegmentationNode")
    node.UnRegister(None)
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    scene.AddNode(node)
    node.SetNodeReferenceID(PREVIEW_ROLE, scan.segmentation.GetID())
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetSaveWithScene(False)
    display.SetVisibility2DFill(False)
    display.SetVisibility2DOutline(True)
    display.SetVisibility3D(False)
    display.SetSliceIntersectionThickness(_OUTLINE_PIXELS)
    return node
