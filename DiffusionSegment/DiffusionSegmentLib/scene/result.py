"""A worker's result in the scene: all of its nodes, or none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import slicer
from DiffusionSegmentBackend.buffers import open_buffer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol import Result

from .overlay import OverlayKind, styleOverlay
from .segmentation import putSegmentation
from .terminology import ModelDescription
from .volumes import updateScalarVolume

REPORT_ATTRIBUTE = "DiffusionSegment.report"
_BODY_AXES = (
    OverlayKind.BODY_RIGHT_LEFT,
    OverlayKind.BODY_ANTERIOR_POSTERIOR,
    OverlayKind.BODY_INFERIOR_SUPERIOR,
)


@dataclass(frozen=True)
class SceneResult:
    """The nodes of one result; `overlays` holds a volume for each kind that the result has."""

    segmentation: slicer.vtkMRMLSegmentationNode
    overlays: dict[OverlayKind, slicer.vtkMRMLScalarVolumeNode] = field(default_factory=dict)


def putResult(
    scene: slicer.vtkMRMLScene,
    result: Result,
    inputNode: slicer.vtkMRMLScalarVolumeNode,
    model: ModelDescription,
    *,
    previous: SceneResult | None = None,
) -> SceneResult:
    """Put a result beside its input volume; the nodes of `previous`, while in the scene, are used again.

    Raises:
        DiffusionSegmentError: INPUT_MISSING when the input volume has left the scene, GEOMETRY when it has changed its
            size since; the scene is then as before.
    """
    if inputNode.GetScene() is not scene:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING, "The input volume is no longer in the scene; the result was dropped.", hint=""
        )
    maps = _openMaps(result)
    labels = np.array(open_buffer(result.labels))
    width, height, depth = inputNode.GetImageData().GetDimensions()
    if labels.shape != (depth, height, width):
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY, "The input volume has changed since the click.", hint="Click Segment again."
        )
    kept = previous if previous is not None and previous.segmentation.GetScene() is scene else None
    with _allOrNothing(scene):
        overlays = {}
        for kind, array in maps.items():
            name = f"{inputNode.GetName()} {kind.value.lower()}"
            old = kept.overlays.get(kind) if kept else None
            old = old if old is not None and old.GetScene() is scene else None
            overlays[kind] = updateScalarVolume(scene, array, inputNode, name, old)
            styleOverlay(overlays[kind], kind)
        segmentation = putSegmentation(
            scene,
            labels,
            model.labels,
            inputNode,
            f"{inputNode.GetName()} segmentation",
            provenance=result.report.get("provenance", {}),
            node=kept.segmentation if kept else None,
        )
        segmentation.SetAttribute(REPORT_ATTRIBUTE, json.dumps(result.report))
        _placeBeside(scene, inputNode, [segmentation, *overlays.values()])
    return SceneResult(segmentation, overlays)


def _openMaps(result: Result) -> dict[OverlayKind, np.ndarray]:
    maps = {
        OverlayKind.UNCERTAINTY: open_buffer(result.uncertainty),
        OverlayKind.MUTUAL_INFORMATION: open_buffer(result.mutual_information),
    }
    if result.bodypart is not None:
        coordinates = open_buffer(result.bodypart)
        maps |= {kind: coordinates[..., axis] for axis, kind in enumerate(_BODY_AXES)}
    return maps


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
    """Under the same study as the input volume, where the scene keeps a subject hierarchy."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
    inputItem = hierarchy.GetItemByDataNode(inputNode) if hierarchy is not None else 0
    if not inputItem:
        return
    parent = hierarchy.GetItemParent(inputItem)
    for node in nodes:
        item = hierarchy.GetItemByDataNode(node)
        if item:
            hierarchy.SetItemParent(item, parent)
