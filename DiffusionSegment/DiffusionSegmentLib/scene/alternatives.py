"""The samples of the diffusion model: look at one as an outline, and pick it for a region or an organ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.buffers import geometry_of, open_buffer
from DiffusionSegmentBackend.protocol.messages import Hypotheses

from .box import Box, boxAround, boxOfGrid
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


@dataclass(frozen=True)
class SampleMaps:
    """K label maps, uint8, that the model holds possible, of the voxels of `box`.

    They live in memory alone, not in saved scenes: a scene would grow by the number of samples.
    """

    samples: tuple[PackedArray, ...]
    box: Box

    def __len__(self) -> int:
        return len(self.samples)


@dataclass(frozen=True)
class Place:
    """Where an alternative is looked at or picked: one region of the review, or one organ by its label value.

    `regions` numbers the voxels of regions, n + 1 for region n, uint8 (k, j, i) of the whole volume.
    """

    region: Region | None = None
    regions: PackedArray | None = None
    organ: int | None = None


def keepAlternatives(scan: SegmentedScan, answer: Hypotheses) -> SampleMaps:
    """Take the samples out of the worker's buffer, which is deleted afterwards.

    Raises:
        DiffusionSegmentError: INPUT_MISSING for deleted nodes, GEOMETRY when the scan was moved meanwhile or the
            samples reach beyond it, PROTOCOL or INPUT_MISSING for a damaged buffer.
    """
    scan.check()
    samples = open_buffer(answer.labels)
    grid = volumeBuffer(scan.input)[1]
    box = boxOfGrid(samples.shape[1:], geometry_of(answer.labels), grid, what="The list of samples")
    if not scan.box.contains(box):
        raise DiffusionSegmentError(ErrorCode.GEOMETRY, "The samples reach beyond the scan.", hint="Ask again.")
    return SampleMaps(tuple(pack(sample) for sample in samples), box)


def pickAlternative(scan: SegmentedScan, alternatives: SampleMaps, number: int, place: Place) -> Box | None:
    """Write sample `number` (from 0) into the segmentation at one place; gives the box of what changed, or None.

    For a region, the voxels of the region take the sample's labels. For an organ, it loses the voxels that the sample
    gives it not and gains those that nobody holds; other organs keep theirs. Locked organs and the reader's own
    segments are untouched. The delivered labels stay as they are, so a choice counts as a correction afterwards.

    Raises:
        DiffusionSegmentError: OPTION for a sample or region that does not exist; INPUT_MISSING, GEOMETRY as
            `writeLabels`.
    """
    present = readLabels(scan, box=alternatives.box).labels
    wanted = _afterPick(scan, alternatives, number, place, present)
    changed = boxAround(wanted != present)
    if changed is None:
        return None
    start = np.add(alternatives.box.start, changed.start)
    box = Box.ofShape(changed.shape, (int(start[0]), int(start[1]), int(start[2])))
    writeLabels(scan, wanted[changed.slices], box=box)
    return box


def showAlternative(
    scan: SegmentedScan, alternatives: SampleMaps, number: int, place: Place
) -> slicer.vtkMRMLSegmentationNode:
    """Outline what picking sample `number` would give, the organs concerned alone, in a node that is never saved.

    Raises:
        DiffusionSegmentError: as `pickAlternative`.
    """
    present = readLabels(scan, box=alternatives.box).labels
    wanted = _afterPick(scan, alternatives, number, place, present)
    concerned = {place.organ} if place.organ is not None else _valuesOf(scan, place.region)
    shown = valueTable({value: value for value in concerned if value})[wanted]
    node = _previewNode(scan) or _newPreview(scan)
    node.SetName(f"Alternative {number + 1} of {len(alternatives)}")
    node.SetAndObserveTransformNodeID(scan.input.GetTransformNodeID())
    wasModified = node.StartModify()
    segmentation = node.GetSegmentation()
    segmentation.RemoveAllSegments()
    image = orientedImage(shown, scan.input, start=alternatives.box.start)
    for label in scan.labels:
        if label.value in concerned and np.any(shown == label.value):
            segmentation.AddSegment(newSegment(label, image, {}), label.name)
    node.EndModify(wasModified)
    return node


def hideAlternative(scan: SegmentedScan) -> None:
    """Take the outline away; nothing happens where none is shown."""
    node = _previewNode(scan)
    if node is not None:
        scene = node.GetScene()
        scene.RemoveNode(node.GetDisplayNode())
        scene.RemoveNode(node)


def _afterPick(
    scan: SegmentedScan, alternatives: SampleMaps, number: int, place: Place, present: np.ndarray
) -> np.ndarray:
    """The labels inside the samples' box as they would be after picking."""
    if not 0 <= number < len(alternatives):
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"There is no alternative {number + 1}.",
            hint=f"The result holds {len(alternatives)}.",
        )
    sample = alternatives.samples[number].unpack()
    locked = np.zeros(256, bool)
    locked[list(lockedValues(scan))] = True
    free = ~(locked[present] | locked[sample])
    if place.organ is None:
        return np.where(free & _regionMask(place, alternatives.box), sample, present)
    organ = np.uint8(place.organ)
    lost = (present == organ) & (sample != organ) & ~locked[organ]
    gained = (present == 0) & (sample == organ) & free
    return np.where(lost, np.uint8(0), np.where(gained, organ, present))


def _regionMask(place: Place, box: Box) -> np.ndarray:
    regions = place.regions.unpack() if place.regions is not None else None
    if place.region is None or regions is None or not Box.ofShape(regions.shape).contains(box):
        raise DiffusionSegmentError(
            ErrorCode.OPTION, "The voxels of this region are not known.", hint="Segment the scan again."
        )
    return regions[box.slices] == place.region.number + 1


def _valuesOf(scan: SegmentedScan, region: Region | None) -> set[int]:
    found = {scan.label(name) for name in region.organs} if region is not None else set()
    return {label.value for label in found if label is not None}


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
