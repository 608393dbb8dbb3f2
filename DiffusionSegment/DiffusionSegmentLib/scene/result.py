"""A worker's result in the scene: all of its nodes, or none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.buffers import geometry_of, open_buffer
from DiffusionSegmentBackend.protocol.messages import Result, VolumeReference

from .correction_maps import removeScribbles, storeResultLabels
from .correction_trace import carriedCorrections
from .label_map import occupiedByOthers, readLabels, writeLabels
from .merge_policy import MergePolicy, lockedValues, merged
from .overlay import OverlayKind, styleOverlay
from .packed_array import PackedArray, pack
from .review import readRegions, takeReport
from .segmentation import keepProvenance, putSegmentation
from .segmented_scan import SegmentedScan, keepGeometry
from .terminology import ModelDescription
from .volumes import scanVersion, updateScalarVolume

_OVERLAY_ROLE = "DiffusionSegment.overlay"
_PLACE_ATTRIBUTE = "DiffusionSegment.place"
_FILES_OUTLIVE_NAMES = os.name == "posix"
_BODY_AXES = (
    OverlayKind.BODY_RIGHT_LEFT,
    OverlayKind.BODY_ANTERIOR_POSTERIOR,
    OverlayKind.BODY_INFERIOR_SUPERIOR,
)


@dataclass(frozen=True)
class SceneResult:
    """The nodes of one result; `overlays` holds a volume for each kind that the result has.

    `regions` numbers the voxels of the regions to review, n + 1 for region n, uint8 (k, j, i); it is kept in memory
    alone, and None where the result has none.
    """

    segmentation: slicer.vtkMRMLSegmentationNode
    overlays: dict[OverlayKind, slicer.vtkMRMLScalarVolumeNode] = field(default_factory=dict)
    regions: PackedArray | None = None


def putResult(
    scene: slicer.vtkMRMLScene | None,
    result: Result,
    inputNode: slicer.vtkMRMLScalarVolumeNode,
    model: ModelDescription,
    *,
    previous: SceneResult | None = None,
    policy: MergePolicy = MergePolicy.REPLACE,
    version: int | None = None,
) -> SceneResult:
    """Put a result beside its input volume; the nodes of `previous`, while in the scene, are used again.

    `version` is the `scanVersion` of what was segmented: a browser of sequences may show another frame by now.
    `policy` says what becomes of the segmentation in `previous`; a NEW one gets nodes of its own. What the segmentation
    then holds counts as delivered, so that only later edits are corrections; marks of earlier ones are forgotten.

    Raises:
        DiffusionSegmentError: INPUT_MISSING when the input volume has left the scene, GEOMETRY when it has changed its
            voxels since, or the segmentation to be merged with lies on another grid; no node is added then.
    """
    labels = open_buffer(result.labels)
    scene = _sceneOf(inputNode, scene, labels.shape, version)
    maps = _openMaps(result)
    readRegions(result.report)
    regions = openRegions(result.regions, labels.shape)
    usable = previous is not None and previous.segmentation.GetScene() is scene and policy is not MergePolicy.NEW
    kept = previous if usable else None
    merging = kept is not None and policy is not MergePolicy.REPLACE
    if kept is not None and merging:
        labels = _meet(SegmentedScan(inputNode, kept.segmentation, model.labels), labels, policy)
    with _allOrNothing(scene):
        overlays = {}
        for kind, array in maps.items():
            name = f"{inputNode.GetName()} {kind.value.lower()}"
            old = kept.overlays.get(kind) if kept else None
            old = old if old is not None and old.GetScene() is scene else None
            overlays[kind] = old if old is not None else scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
            # Dressed while it is empty: the display of a full volume would first compute its histogram.
            styleOverlay(overlays[kind], kind)
            updateScalarVolume(scene, array, inputNode, name, overlays[kind])
        node = kept.segmentation if kept is not None else None
        segmentation = _putLabels(labels, result, inputNode, model, node, merging=merging)
        for kind, overlay in overlays.items():
            segmentation.SetNodeReferenceID(f"{_OVERLAY_ROLE}.{kind.name}", overlay.GetID())
        _placeBeside(scene, inputNode, [segmentation, *overlays.values()])
    return SceneResult(segmentation, overlays, pack(regions) if regions is not None else None)


def _sceneOf(
    inputNode: slicer.vtkMRMLScalarVolumeNode,
    scene: slicer.vtkMRMLScene | None,
    shape: tuple[int, ...],
    version: int | None,
) -> slicer.vtkMRMLScene:
    """The scene in which the input volume still lies, with the voxels that were segmented."""
    if scene is None or inputNode.GetScene() is not scene:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING, "The input volume is no longer in the scene; the result was dropped.", hint=""
        )
    image = inputNode.GetImageData()
    changed = image is None or shape != image.GetDimensions()[::-1]
    if changed or version not in (None, scanVersion(inputNode)):
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY, "The input volume has changed since the click.", hint="Click Segment again."
        )
    return scene


def findResult(segmentation: slicer.vtkMRMLSegmentationNode) -> SceneResult:
    """The nodes of a result again, in a loaded scene; its map of regions was not saved."""
    found = {kind: segmentation.GetNodeReference(f"{_OVERLAY_ROLE}.{kind.name}") for kind in OverlayKind}
    return SceneResult(segmentation, {kind: node for kind, node in found.items() if node is not None})


def _putLabels(
    labels: np.ndarray,
    result: Result,
    inputNode: slicer.vtkMRMLScalarVolumeNode,
    model: ModelDescription,
    node: slicer.vtkMRMLSegmentationNode | None,
    *,
    merging: bool,
) -> slicer.vtkMRMLSegmentationNode:
    """Labels, report and what corrections need in `node` or a new one; when `merging`, its other segments stay."""
    name = f"{inputNode.GetName()} segmentation"
    report = result.report
    provenance = report.get("provenance", {})
    if node is not None and merging:
        report = carriedCorrections(
            report, SegmentedScan(inputNode, node, model.labels), open_buffer(result.labels), labels
        )
        writeLabels(SegmentedScan(inputNode, node, model.labels), labels)
        keepProvenance(node, provenance)
    else:
        node = putSegmentation(
            inputNode.GetScene(), labels, model.labels, inputNode, name, provenance=provenance, node=node
        )
    scan = SegmentedScan(inputNode, node, model.labels)
    if merging or not _FILES_OUTLIVE_NAMES:
        storeResultLabels(scan, labels)
    else:
        storeResultLabels(scan, open_buffer(result.labels, writable=True), owned=True)
    removeScribbles(scan)
    keepGeometry(node, geometry_of(result.labels))
    takeReport(node, report)
    return node


def _openMaps(result: Result) -> dict[OverlayKind, np.ndarray]:
    """The maps, as files in memory where the system lets a file be deleted that is in use, so that none is copied."""
    maps = {
        OverlayKind.UNCERTAINTY: open_buffer(result.uncertainty, writable=_FILES_OUTLIVE_NAMES),
        OverlayKind.MUTUAL_INFORMATION: open_buffer(result.mutual_information, writable=_FILES_OUTLIVE_NAMES),
    }
    if result.bodypart is not None:
        coordinates = open_buffer(result.bodypart)
        maps |= {kind: coordinates[..., axis] for axis, kind in enumerate(_BODY_AXES)}
    return maps


def openRegions(reference: VolumeReference | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """The map that numbers the regions to review; None where a result has none.

    Raises:
        DiffusionSegmentError: GEOMETRY when it does not have the `shape` of the scan; PROTOCOL, INPUT_MISSING for a
            damaged buffer.
    """
    if reference is None:
        return None
    regions = open_buffer(reference)
    if regions.shape != shape:
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY, "The map of regions does not fit the scan.", hint="Segment the scan again."
        )
    return regions


def _meet(scan: SegmentedScan, arriving: np.ndarray, policy: MergePolicy) -> np.ndarray:
    """The labels after a result met the present segmentation; the reader's own segments are not empty either."""
    present = readLabels(scan).labels
    if policy is MergePolicy.FILL_EMPTY:
        arriving = np.where(occupiedByOthers(scan), np.uint8(0), arriving)
    return merged(present, arriving, policy, lockedValues(scan))


@contextmanager
def _allOrNothing(scene: slicer.vtkMRMLScene) -> Iterator[None]:
    """Remove what was added when anything goes wrong inside."""
    before = {scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())}
    try:
        yield
    except BaseException:
        added = [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
        for node in [node for node in added if node.GetID() not in before]:
            scene.RemoveNode(node)
        raise


def _placeBeside(scene: slicer.vtkMRMLScene, inputNode: slicer.vtkMRMLNode, nodes: list[slicer.vtkMRMLNode]) -> None:
    """Under the same study as the input volume, where the scene keeps a subject hierarchy.

    What the reader has moved elsewhere since stays there.
    """
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
    inputItem = hierarchy.GetItemByDataNode(inputNode) if hierarchy is not None else 0
    if not inputItem:
        return
    parent = hierarchy.GetItemParent(inputItem)
    for node in nodes:
        item = hierarchy.GetItemByDataNode(node)
        present = hierarchy.GetItemName(hierarchy.GetItemParent(item)) if item else None
        if item and node.GetAttribute(_PLACE_ATTRIBUTE) in (None, present):
            hierarchy.SetItemParent(item, parent)
            # By name: numbers of items are others in a loaded scene.
            node.SetAttribute(_PLACE_ATTRIBUTE, hierarchy.GetItemName(parent))
