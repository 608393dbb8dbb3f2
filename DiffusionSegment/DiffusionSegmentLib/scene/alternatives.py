"""Samples of the diffusion model: preview one as an outline, and apply it to a region or an organ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.buffers import geometry_of, open_buffer
from DiffusionSegmentBackend.protocol.messages import Samples
from numpy.typing import NDArray

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
    """K sampled label maps (uint8) of the voxels of `box`.

    They are kept in memory only: saved scenes would grow by the number of samples.
    """

    samples: tuple[PackedArray, ...]
    box: Box

    def __len__(self) -> int:
        return len(self.samples)


@dataclass(frozen=True)
class AlternativeTarget:
    """Where an alternative is previewed or applied: one region of the review, or one organ by its label value.

    `regions` is a map (k, j, i), uint8, of the whole volume: n + 1 in region n.
    """

    region: Region | None = None
    regions: PackedArray | None = None
    organ: int | None = None


def keepAlternatives(scan: SegmentedScan, answer: Samples) -> SampleMaps:
    """Copy the samples from the buffer of the worker, which is deleted afterwards.

    Raises:
        DiffusionSegmentError: INPUT_MISSING for deleted nodes, GEOMETRY when the scan was moved since or the samples
            reach beyond it, PROTOCOL or INPUT_MISSING for a damaged buffer.
    """
    scan.check()
    samples = open_buffer(answer.labels)
    grid = volumeBuffer(scan.input)[1]
    box = boxOfGrid(samples.shape[1:], geometry_of(answer.labels), grid, what="The list of samples")
    if not scan.box.contains(box):
        raise DiffusionSegmentError(ErrorCode.GEOMETRY, "The samples reach beyond the scan.", hint="Ask again.")
    return SampleMaps(tuple(pack(sample) for sample in samples), box)


def pickAlternative(
    scan: SegmentedScan, alternatives: SampleMaps, number: int, target: AlternativeTarget
) -> Box | None:
    """Write sample `number` (from 0) into the segmentation, in a region or for an organ.

    The voxels of a region take the labels of the sample. An organ loses the voxels that it does not have in the sample,
    and gains those that are background in the segmentation; other organs do not change. Locked organs and user segments
    are not touched. The stored result labels do not change, so the choice later counts as an edit.

    Returns:
        The box of the changed voxels; None when nothing changed.

    Raises:
        DiffusionSegmentError: OPTION for a sample or region that does not exist; INPUT_MISSING, GEOMETRY as
            `writeLabels`.
    """
    present = readLabels(scan, box=alternatives.box).labels
    wanted = _labelsAfterPick(scan, alternatives, number, target, present)
    changed = boxAround(wanted != present)
    if changed is None:
        return None
    start = np.add(alternatives.box.start, changed.start)
    box = Box.ofShape(changed.shape, (int(start[0]), int(start[1]), int(start[2])))
    writeLabels(scan, wanted[changed.slices], box=box)
    return box


def showAlternative(
    scan: SegmentedScan, alternatives: SampleMaps, number: int, target: AlternativeTarget
) -> slicer.vtkMRMLSegmentationNode:
    """Show the outlines that picking sample `number` would give, of the affected organs, in a node that is not saved.

    Raises:
        DiffusionSegmentError: as `pickAlternative`.
    """
    present = readLabels(scan, box=alternatives.box).labels
    wanted = _labelsAfterPick(scan, alternatives, number, target, present)
    affected = {target.organ} if target.organ is not None else _valuesOf(scan, target.region)
    shown = valueTable({value: value for value in affected if value})[wanted]
    node = _previewNode(scan) or _newPreview(scan)
    node.SetName(f"Alternative {number + 1} of {len(alternatives)}")
    node.SetAndObserveTransformNodeID(scan.input.GetTransformNodeID())
    wasModified = node.StartModify()
    segmentation = node.GetSegmentation()
    segmentation.RemoveAllSegments()
    image = orientedImage(shown, scan.input, start=alternatives.box.start)
    for label in scan.labels:
        if label.value in affected and np.any(shown == label.value):
            segmentation.AddSegment(newSegment(label, image, None), label.name)
    node.EndModify(wasModified)
    return node


def hideAlternative(scan: SegmentedScan) -> None:
    """Remove the outlines, if any are shown."""
    node = _previewNode(scan)
    if node is not None:
        scene = node.GetScene()
        scene.RemoveNode(node.GetDisplayNode())
        scene.RemoveNode(node)


def _labelsAfterPick(
    scan: SegmentedScan, alternatives: SampleMaps, number: int, target: AlternativeTarget, present: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """The labels inside the box of the samples after picking."""
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
    if target.organ is None:
        return np.where(free & _regionMask(target, alternatives.box), sample, present)
    organ = np.uint8(target.organ)
    lost = (present == organ) & (sample != organ) & ~locked[organ]
    gained = (present == 0) & (sample == organ) & free
    return np.where(lost, np.uint8(0), np.where(gained, organ, present))


def _regionMask(target: AlternativeTarget, box: Box) -> NDArray[np.bool_]:
    regions = target.regions.unpack() if target.regions is not None else None
    if target.region is None or regions is None or not Box.ofShape(regions.shape).contains(box):
        raise DiffusionSegmentError(
            ErrorCode.OPTION, "The voxels of this region are unknown.", hint="Segment the scan again."
        )
    mask: NDArray[np.bool_] = regions[box.slices] == target.region.number + 1
    return mask


def _valuesOf(scan: SegmentedScan, region: Region | None) -> set[int]:
    labels = {scan.label(name) for name in region.organs} if region is not None else set()
    return {label.value for label in labels if label is not None}


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
