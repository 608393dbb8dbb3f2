"""Similar voxels: the similarity of features to those at a point as an overlay, and a segment around the point.

The map is on the grid of the model, coarser than the scan, so that it follows the mouse; only a region that becomes a
segment is resampled to the voxels of the scan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.buffers import geometry_of, open_buffer
from DiffusionSegmentBackend.protocol.messages import Similarity
from numpy.typing import NDArray
from slicer.util import updateVolumeFromArray
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from .box import Box, boxAround
from .layers import BINARY, layersOf
from .overlay import OverlayStyle, applyStyle, colourNode, setThreshold, showForeground
from .segmentation import orientedImage
from .segmented_scan import SegmentedScan
from .volumes import placeOver, toMatrix, volumeBuffer

SIMILARITY_ROLE = "DiffusionSegment.similarityOf"
_STYLE = OverlayStyle(0.0, 1.0, 0.7, "%.2f")
_COLOURS_NAME = "DiffusionSegment similarity"
_STOPS = ((0.0, 0.05, 0.10, 0.25), (0.5, 0.05, 0.45, 0.55), (0.8, 0.25, 0.85, 0.70), (1.0, 0.95, 1.0, 0.80))
_SEGMENT_COLOURS = ((0.25, 0.85, 0.70), (0.95, 0.65, 0.25), (0.55, 0.55, 0.95), (0.90, 0.45, 0.70))
_SEGMENT_NAME = "Similar region {}"
_NOT_SIMILAR = -1.0


@dataclass(frozen=True)
class SimilarRegion:
    """A segment of similar voxels."""

    segmentId: str
    name: str
    volumeMl: float


def findSimilarity(inputNode: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLScalarVolumeNode | None:
    """The similarity map of a scan, None where there is none; it is not saved with the scene."""
    scene = inputNode.GetScene()
    count = scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") if scene is not None else 0
    nodes = [scene.GetNthNodeByClass(n, "vtkMRMLScalarVolumeNode") for n in range(count)]
    return next((node for node in nodes if node.GetNodeReferenceID(SIMILARITY_ROLE) == inputNode.GetID()), None)


def putSimilarity(
    inputNode: slicer.vtkMRMLScalarVolumeNode, answer: Similarity, sentToLPS: NDArray[np.float64]
) -> slicer.vtkMRMLScalarVolumeNode:
    """Put the map of the worker into the scene; it replaces the map of an earlier point.

    `sentToLPS` is the 4x4 matrix from (i, j, k, 1) to LPS mm that was sent; the scan may have been moved since.

    Raises:
        DiffusionSegmentError: INPUT_MISSING when the scan has left the scene, PROTOCOL or INPUT_MISSING for the buffer.
    """
    if inputNode.GetScene() is None:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING, "The input volume is no longer in the scene.", hint="Choose another."
        )
    values = np.array(open_buffer(answer.similarity))
    node = findSimilarity(inputNode)
    isNew = node is None
    if node is None:
        node = _newMap(inputNode)
    gridToVoxels = np.linalg.inv(sentToLPS) @ geometry_of(answer.similarity)
    placeOver(node, inputNode, gridToVoxels)
    updateVolumeFromArray(node, values)
    if isNew:
        colours = colourNode(node.GetScene(), _COLOURS_NAME, _STOPS)
        colours.SetSaveWithScene(False)
        applyStyle(node, _STYLE, colours)
        node.GetDisplayNode().SetSaveWithScene(False)
    return node


def showSimilarity(
    inputNode: slicer.vtkMRMLScalarVolumeNode,
    similarity: slicer.vtkMRMLScalarVolumeNode,
    *,
    threshold: float,
    opacity: float,
) -> None:
    """Show the map over its scan; voxels with a similarity below `threshold` are transparent."""
    from slicer.i18n import tr as _

    scene = inputNode.GetScene()
    setThreshold(similarity, threshold)
    showForeground(scene, inputNode, similarity, _STYLE, legendTitle=_("Similarity"), opacity=opacity)
    slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(similarity).SetSaveWithScene(False)


def segmentationFor(
    inputNode: slicer.vtkMRMLScalarVolumeNode, chosen: slicer.vtkMRMLSegmentationNode | None
) -> slicer.vtkMRMLSegmentationNode:
    """The `chosen` segmentation where it is one of this scan, else a new, empty one."""
    if chosen is not None and _isOf(chosen, inputNode):
        return chosen
    node = inputNode.GetScene().AddNewNodeByClass("vtkMRMLSegmentationNode", f"{inputNode.GetName()} segmentation")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(inputNode)
    node.SetAndObserveTransformNodeID(inputNode.GetTransformNodeID())
    node.GetSegmentation().SetSourceRepresentationName(BINARY)
    return node


def makeSimilarSegment(
    scan: SegmentedScan,
    similarity: slicer.vtkMRMLScalarVolumeNode,
    point: tuple[float, float, float],
    threshold: float,
) -> SimilarRegion:
    """Make a segment of the connected voxels around `point` (LPS mm, world) with a similarity of at least `threshold`.

    They are connected on the grid of the map, which is then interpolated linearly to the voxels of the scan. Other
    segments do not change.

    Raises:
        DiffusionSegmentError: INPUT_MISSING or GEOMETRY, see `layersOf`; OPTION when the point lies outside the map, or
            no voxel around it reaches the threshold.
    """
    layersOf(scan)
    if similarity.GetScene() is None:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING, "The similarity map is no longer in the scene.", hint="Place a point again."
        )
    values, gridToLPS = volumeBuffer(similarity)
    region = _regionAround(values, gridToLPS, point, threshold)
    # Other similar regions are excluded; values below the threshold stay, for a smooth border.
    isolated = np.where(region | (values < threshold), values, np.float32(_NOT_SIMILAR))
    volumeToLPS = volumeBuffer(scan.input)[1]
    voxelsToGrid = np.linalg.inv(gridToLPS) @ volumeToLPS
    box = _boxInVoxels(region, voxelsToGrid).cut(scan.box)
    mask = _interpolated(isolated, voxelsToGrid, box) >= threshold if not box.empty else np.zeros(box.shape, bool)
    if not mask.any():
        raise _noSimilarVoxel(threshold)
    segment = _addSegment(scan, mask.astype(np.uint8), box)
    voxelMl = abs(float(np.linalg.det(volumeToLPS[:3, :3]))) / 1000.0
    name = scan.segmentation.GetSegmentation().GetSegment(segment).GetName()
    return SimilarRegion(segment, name, float(np.count_nonzero(mask)) * voxelMl)


def _newMap(inputNode: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLScalarVolumeNode:
    scene = inputNode.GetScene()
    node = scene.CreateNodeByClass("vtkMRMLScalarVolumeNode")
    node.UnRegister(None)
    node.SetName(f"{inputNode.GetName()} similarity")
    node.SetSaveWithScene(False)
    scene.AddNode(node)
    node.SetNodeReferenceID(SIMILARITY_ROLE, inputNode.GetID())
    return node


def _isOf(segmentation: slicer.vtkMRMLSegmentationNode, inputNode: slicer.vtkMRMLScalarVolumeNode) -> bool:
    if segmentation.GetScene() is not inputNode.GetScene():
        return False
    source = segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole())
    if source is not None:
        return source is inputNode
    try:
        layersOf(SegmentedScan(inputNode, segmentation, ()))
    except DiffusionSegmentError:
        return False
    return True


def _regionAround(
    values: NDArray[Any], gridToLPS: NDArray[np.float64], point: tuple[float, float, float], threshold: float
) -> NDArray[np.bool_]:
    """Mask (k, j, i) of the face-connected region around `point` with a similarity of at least `threshold`."""
    seed = np.floor((np.linalg.inv(gridToLPS) @ (*point, 1.0))[:3] + 0.5)
    if np.any(seed < 0) or np.any(seed >= values.shape[::-1]):
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            "The point lies outside the region that was analysed.",
            hint="Place it inside the patient.",
        )
    seeds = vtk.vtkPoints()
    seeds.InsertNextPoint(*(float(index) for index in seed))
    grow = vtk.vtkImageThresholdConnectivity()
    grow.SetInputData(_image(np.where(values >= threshold, np.uint8(1), np.uint8(0))))
    grow.SetSeedPoints(seeds)
    grow.ThresholdByUpper(1)
    grow.SetInValue(1)
    grow.SetOutValue(0)
    grow.Update()
    region: NDArray[np.bool_] = vtk_to_numpy(grow.GetOutput().GetPointData().GetScalars()).reshape(values.shape) > 0
    if not region.any():
        raise _noSimilarVoxel(threshold)
    return region


def _boxInVoxels(region: NDArray[Any], voxelsToGrid: NDArray[np.float64]) -> Box:
    """The voxels of the scan that a region of the map covers, with a margin of one voxel of the map."""
    inner = boxAround(region)
    assert inner is not None
    ends = np.array([np.subtract(inner.start, 1)[::-1], np.array(inner.stop)[::-1]], dtype=float)
    corners = np.array([(*(ends[n >> axis & 1, axis] for axis in range(3)), 1.0) for n in range(8)])
    indices = (np.linalg.inv(voxelsToGrid) @ corners.T)[:3]
    i, j, k = (int(n) for n in np.floor(indices.min(axis=1)))
    right, back, top = (int(n) + 1 for n in np.ceil(indices.max(axis=1)))
    return Box((k, j, i), (top, back, right))


def _interpolated(values: NDArray[Any], voxelsToGrid: NDArray[np.float64], box: Box) -> NDArray[Any]:
    """The map interpolated linearly at the voxels of `box`; `_NOT_SIMILAR` outside the map."""
    transform = vtk.vtkTransform()
    transform.SetMatrix(toMatrix(voxelsToGrid))
    reslice = vtk.vtkImageReslice()
    reslice.SetInputData(_image(values))
    reslice.SetResliceTransform(transform)
    reslice.SetInterpolationModeToLinear()
    reslice.SetBackgroundLevel(_NOT_SIMILAR)
    reslice.SetOutputSpacing(1.0, 1.0, 1.0)
    reslice.SetOutputOrigin(0.0, 0.0, 0.0)
    bounds = [(first, last - 1) for first, last in zip(box.start[::-1], box.stop[::-1], strict=True)]
    reslice.SetOutputExtent(*(number for pair in bounds for number in pair))
    reslice.Update()
    interpolated: NDArray[Any] = vtk_to_numpy(reslice.GetOutput().GetPointData().GetScalars()).reshape(box.shape)
    return interpolated


def _image(array: NDArray[Any]) -> vtk.vtkImageData:
    """An image of an array (k, j, i) whose coordinates are its indices."""
    image = vtk.vtkImageData()
    image.SetDimensions(*array.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(array).ravel(), deep=True))
    return image


def _addSegment(scan: SegmentedScan, mask: NDArray[Any], box: Box) -> str:
    """Add a segment with a separate label map, so that no other segment loses a voxel; returns its id."""
    segmentation = scan.segmentation.GetSegmentation()
    names = {segmentation.GetSegment(name).GetName() for name in segmentation.GetSegmentIDs()}
    number = next(n for n in range(1, len(names) + 2) if _SEGMENT_NAME.format(n) not in names)
    segment = slicer.vtkSegment()
    segment.SetName(_SEGMENT_NAME.format(number))
    segment.SetColor(*_SEGMENT_COLOURS[(number - 1) % len(_SEGMENT_COLOURS)])
    segment.SetLabelValue(1)
    segment.AddRepresentation(BINARY, orientedImage(mask, scan.input, start=box.start))
    segmentId = str(segmentation.GenerateUniqueSegmentID(f"similar_region_{number}"))
    wasModified = scan.segmentation.StartModify()
    segmentation.SetSourceRepresentationName(BINARY)
    segmentation.AddSegment(segment, segmentId)
    scan.segmentation.EndModify(wasModified)
    return segmentId


def _noSimilarVoxel(threshold: float) -> DiffusionSegmentError:
    return DiffusionSegmentError(
        ErrorCode.OPTION,
        f"No voxel around the point has a similarity of {threshold:.2f}.",
        hint="Lower the threshold, or place the point again.",
    )
