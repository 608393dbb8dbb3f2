"""Put a result of the worker into the scene: all of its nodes, or none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.buffers import geometry_of, open_buffer
from DiffusionSegmentBackend.protocol.messages import Result, VolumeReference
from numpy.typing import NDArray

from .correction_maps import removeScribbles, storeResultLabels, storeReviewed
from .correction_trace import carriedCorrections
from .given_segmentation import GivenSegmentation
from .label_map import readLabels, userSegmentMask, writeLabels
from .merge_policy import MergePolicy, lockedValues, merged
from .overlay import OverlayKind, styleOverlay
from .overlay_maps import MAPPED_FILES_CAN_BE_DELETED, OverlayMap, openUncertaintyMaps, putMap
from .packed_array import PackedArray, pack
from .review import storeReport
from .segmentation import putSegmentation, storeProvenance
from .segmented_scan import SegmentedScan, keepGeometry
from .terminology import ModelDescription
from .volumes import scanVersion

_OVERLAY_ROLE = "DiffusionSegment.overlay"
_PARENT_ATTRIBUTE = "DiffusionSegment.place"
_BODY_AXES = (
    OverlayKind.BODY_RIGHT_LEFT,
    OverlayKind.BODY_ANTERIOR_POSTERIOR,
    OverlayKind.BODY_INFERIOR_SUPERIOR,
)


@dataclass(frozen=True)
class SceneResult:
    """The nodes of one result; `overlays` has a volume for each kind of overlay of the result.

    `regions` is a map (k, j, i), uint8, with n + 1 in region n of the review; it is not saved with the scene, and None
    where the result has none.
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
    given: GivenSegmentation | None = None,
) -> SceneResult:
    """Put a result into the scene, under the same study as its input volume.

    The labels are stored as the last result, so that only later edits are corrections; scribbles of earlier corrections
    are removed.

    Args:
        scene: the scene in which the run was started.
        result: answer of the worker.
        inputNode: the volume that was segmented.
        model: the model of the run.
        previous: an earlier result, whose nodes are reused unless they were deleted.
        policy: how the labels are merged with those of `previous`; NEW creates new nodes.
        version: `scanVersion` of the segmented voxels; a sequence browser may show another frame since.
        given: what was reviewed, where the result is that of a review: it goes into new nodes.

    Raises:
        DiffusionSegmentError: INPUT_MISSING when the input volume has left the scene, GEOMETRY when its voxels have
            changed since, or the existing segmentation is on another grid; no node is added then.
    """
    labels = open_buffer(result.labels)
    scene = _sceneOf(inputNode, scene, labels.shape, version)
    maps = _openMaps(result)
    regions = openRegions(result.regions, labels.shape)
    policy = MergePolicy.NEW if given is not None else policy
    usable = previous is not None and previous.segmentation.GetScene() is scene and policy is not MergePolicy.NEW
    kept = previous if usable else None
    merging = kept is not None and policy is not MergePolicy.REPLACE
    if kept is not None and merging:
        labels = _mergedLabels(SegmentedScan(inputNode, kept.segmentation, model.labels), labels, policy)
    with _allOrNothing(scene):
        overlays = _putOverlays(scene, maps, inputNode, kept.overlays if kept is not None else {})
        node = kept.segmentation if kept is not None else None
        segmentation = _putLabels(labels, result, inputNode, model, node, merging=merging, given=given)
        for kind, overlay in overlays.items():
            segmentation.SetNodeReferenceID(f"{_OVERLAY_ROLE}.{kind.name}", overlay.GetID())
        _moveToStudy(scene, inputNode, [segmentation, *overlays.values()])
    return SceneResult(segmentation, overlays, pack(regions) if regions is not None else None)


def _putOverlays(
    scene: slicer.vtkMRMLScene,
    maps: dict[OverlayKind, OverlayMap],
    inputNode: slicer.vtkMRMLScalarVolumeNode,
    previous: dict[OverlayKind, slicer.vtkMRMLScalarVolumeNode],
) -> dict[OverlayKind, slicer.vtkMRMLScalarVolumeNode]:
    """Put each map into its previous node where that is still in the scene, else into a new one."""
    overlays = {}
    for kind, values in maps.items():
        name = f"{inputNode.GetName()} {kind.value.lower()}"
        node = previous.get(kind)
        if node is None or node.GetScene() is not scene:
            node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        # Styled while it is empty: otherwise the display node would first compute the histogram.
        styleOverlay(node, kind)
        putMap(node, values, inputNode)
        overlays[kind] = node
    return overlays


def _sceneOf(
    inputNode: slicer.vtkMRMLScalarVolumeNode,
    scene: slicer.vtkMRMLScene | None,
    shape: tuple[int, ...],
    version: int | None,
) -> slicer.vtkMRMLScene:
    """The scene, which must still contain the input volume with the segmented voxels."""
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
    """The nodes of a result in a loaded scene, without the map of regions, which is not saved."""
    nodes = {kind: segmentation.GetNodeReference(f"{_OVERLAY_ROLE}.{kind.name}") for kind in OverlayKind}
    return SceneResult(segmentation, {kind: node for kind, node in nodes.items() if node is not None})


def _putLabels(
    labels: NDArray[np.uint8],
    result: Result,
    inputNode: slicer.vtkMRMLScalarVolumeNode,
    model: ModelDescription,
    node: slicer.vtkMRMLSegmentationNode | None,
    *,
    merging: bool,
    given: GivenSegmentation | None,
) -> slicer.vtkMRMLSegmentationNode:
    """Put labels, report and correction maps into `node` or a new one; when `merging`, its other segments stay."""
    name = f"{inputNode.GetName()} segmentation" if given is None else given.resultName
    report = result.report
    if node is not None and merging:
        report = carriedCorrections(
            report, SegmentedScan(inputNode, node, model.labels), open_buffer(result.labels), labels
        )
        writeLabels(SegmentedScan(inputNode, node, model.labels), labels)
        storeProvenance(node, report.provenance)
    else:
        node = putSegmentation(
            inputNode.GetScene(), labels, model.labels, inputNode, name, provenance=report.provenance, node=node
        )
    scan = SegmentedScan(inputNode, node, model.labels)
    if merging or not MAPPED_FILES_CAN_BE_DELETED:
        storeResultLabels(scan, labels)
    else:
        storeResultLabels(scan, open_buffer(result.labels, writable=True), owned=True)
    removeScribbles(scan)
    if given is not None:
        storeReviewed(scan, given.labels)
    keepGeometry(node, geometry_of(result.labels))
    storeReport(node, report)
    return node


def _openMaps(result: Result) -> dict[OverlayKind, OverlayMap]:
    """The maps of uncertainty on their grid, and the body coordinates in the voxels of the scan."""
    maps = openUncertaintyMaps(result, geometry_of(result.labels))
    if result.bodypart is not None:
        coordinates = open_buffer(result.bodypart)
        maps |= {kind: OverlayMap(coordinates[..., axis], np.eye(4)) for axis, kind in enumerate(_BODY_AXES)}
    return maps


def openRegions(reference: VolumeReference | None, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """The map of the regions to review; None where a result has none.

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


def _mergedLabels(scan: SegmentedScan, arriving: NDArray[np.uint8], policy: MergePolicy) -> NDArray[np.uint8]:
    """The labels after the merge with the existing segmentation; voxels of user segments are not empty either."""
    present = readLabels(scan).labels
    if policy is MergePolicy.FILL_EMPTY:
        arriving = np.where(userSegmentMask(scan), np.uint8(0), arriving)
    return merged(present, arriving, policy, lockedValues(scan))


@contextmanager
def _allOrNothing(scene: slicer.vtkMRMLScene) -> Iterator[None]:
    """Remove all added nodes after an error."""
    before = {scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())}
    try:
        yield
    except BaseException:
        added = [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
        for node in [node for node in added if node.GetID() not in before]:
            scene.RemoveNode(node)
        raise


def _moveToStudy(scene: slicer.vtkMRMLScene, inputNode: slicer.vtkMRMLNode, nodes: list[slicer.vtkMRMLNode]) -> None:
    """Move nodes under the parent of the input volume in the subject hierarchy, if there is one.

    Nodes that the user has moved elsewhere stay there.
    """
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
    inputItem = hierarchy.GetItemByDataNode(inputNode) if hierarchy is not None else 0
    if not inputItem:
        return
    parent = hierarchy.GetItemParent(inputItem)
    for node in nodes:
        item = hierarchy.GetItemByDataNode(node)
        present = hierarchy.GetItemName(hierarchy.GetItemParent(item)) if item else None
        if item and node.GetAttribute(_PARENT_ATTRIBUTE) in (None, present):
            hierarchy.SetItemParent(item, parent)
            # By name: item ids differ in a loaded scene.
            node.SetAttribute(_PARENT_ATTRIBUTE, hierarchy.GetItemName(parent))
