"""Similar voxels: the model's map of likeness to a point as an overlay, and the region around the point as a segment.

The map lies on the model's grid, coarser than the scan, so that it follows the mouse; only a region that is made into a
segment is brought to the scan's own voxels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.buffers import geometry_of, open_buffer
from DiffusionSegmentBackend.protocol.messages import Similarity
from slicer.util import updateVolumeFromArray
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from .box import Box, boxAround
from .layers import BINARY, layersOf
from .overlay import OverlayStyle, applyStyle, colourNode, layOver, setThreshold
from .segmentation import orientedImage
from .segmented_scan import SegmentedScan
from .volumes import RAS_FROM_LPS, ijkToLPS, toMatrix, volumeBuffer

SIMILARITY_ROLE = "DiffusionSegment.similarityOf"
_STYLE = OverlayStyle(0.0, 1.0, 0.7, "%.2f")
_COLOURS_NAME = "DiffusionSegment similarity"
_STOPS = ((0.0, 0.05, 0.10, 0.25), (0.5, 0.05, 0.45, 0.55), (0.8, 0.25, 0.85, 0.70), (1.0, 0.95, 1.0, 0.80))
_SEGMENT_COLOURS = ((0.25, 0.85, 0.70), (0.95, 0.65, 0.25), (0.55, 0.55, 0.95), (0.90, 0.45, 0.70))
_SEGMENT_NAME = "Similar region {}"
_UNLIKE = -1.0


@dataclass(frozen=True)
class SimilarRegion:
    """A segment that was made of similar voxels."""

    segmentId: str
    name: str
    volumeMl: float


def findSimilarity(inputNode: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLScalarVolumeNode | None:
    """The map of a scan that is in the scene now; it is not saved, so a loaded scene has none."""
    scene = inputNode.GetScene()
    count = scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") if scene is not None else 0
    nodes = [scene.GetNthNodeByClass(n, "vtkMRMLScalarVolumeNode") for n in range(count)]
    return next((node for node in nodes if node.GetNodeReferenceID(SIMILARITY_ROLE) == inputNode.GetID()), None)


def putSimilarity(
    inputNode: slicer.vtkMRMLScalarVolumeNode, answer: Similarity, sentToLPS: np.ndarray
) -> slicer.vtkMRMLScalarVolumeNode:
    """The worker's map as a volume of its own geometry beside its scan, in place of the map of the point before.

    `sentToLPS` is the matrix from (i, j, k, 1) to LPS mm with which the scan was sent: it may have been moved since.

    Raises:
        DiffusionSegmentError: INPUT_MISSING when the scan has left the scene, PROTOCOL or INPUT_MISSING for the buffer.
    """
    if inputNode.GetScene() is None:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING, "The input volume is no longer in the scene.", hint="Choose another."
        )
    values = np.array(open_buffer(answer.similarity))
    node = findSimilarity(inputNode)
    fresh = node is None
    if node is None:
        node = _newMap(inputNode)
    gridToVoxels = np.linalg.inv(sentToLPS) @ geometry_of(answer.similarity)
    node.SetIJKToRASMatrix(toMatrix(RAS_FROM_LPS @ ijkToLPS(inputNode) @ gridToVoxels))
    node.SetAndObserveTransformNodeID(inputNode.GetTransformNodeID())
    updateVolumeFromArray(node, values)
    if fresh:
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
    """Lay the map over its scan, what is less alike than `threshold` left out."""
    from slicer.i18n import tr as _

    scene = inputNode.GetScene()
    setThreshold(similarity, threshold)
    layOver(scene, inputNode, similarity, _STYLE, legendTitle=_("Similarity"), opacity=opacity)
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
    """The connected voxels around `point` (LPS mm, world) that are at least as alike as `threshold`, as a new segment.

    Connected on the map's grid; the scan's voxels then come from its linear interpolation. Other segments keep theirs.

    Raises:
        DiffusionSegmentError: INPUT_MISSING or GEOMETRY, see `layersOf`; OPTION when the point lies outside the map, or
            is less alike itself.
    """
    layersOf(scan)
    if similarity.GetScene() is None:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING, "The map of similarity is no longer in the scene.", hint="Place a point again."
        )
    values, gridToLPS = volumeBuffer(similarity)
    region = _regionAround(values, gridToLPS, point, threshold)
    # Other regions as alike must not grow into this one; what is less alike keeps its values for a smooth border.
    alone = np.where(region | (values < threshold), values, np.float32(_UNLIKE))
    volumeToLPS = volumeBuffer(scan.input)[1]
    voxelsToGrid = np.linalg.inv(gridToLPS) @ volumeToLPS
    box = _boxInVoxels(region, voxelsToGrid).cut(scan.box)
    mask = _interpolated(alone, voxelsToGrid, box) >= threshold if not box.empty else np.zeros(box.shape, bool)
    if not mask.any():
        raise _nothingAlike(threshold)
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
    values: np.ndarray, gridToLPS: np.ndarray, point: tuple[float, float, float], threshold: float
) -> np.ndarray:
    """Mask (k, j, i) of the map: face neighbours of the voxel at `point`, and theirs, that are alike enough."""
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
    region = vtk_to_numpy(grow.GetOutput().GetPointData().GetScalars()).reshape(values.shape) > 0
    if not region.any():
        raise _nothingAlike(threshold)
    return region


def _boxInVoxels(region: np.ndarray, voxelsToGrid: np.ndarray) -> Box:
    """The scan's voxels that a region of the map can reach, one grid voxel of margin included."""
    around = boxAround(region)
    assert around is not None
    ends = np.array([np.subtract(around.start, 1)[::-1], np.array(around.stop)[::-1]], dtype=float)
    corners = np.array([(*(ends[n >> axis & 1, axis] for axis in range(3)), 1.0) for n in range(8)])
    places = (np.linalg.inv(voxelsToGrid) @ corners.T)[:3]
    i, j, k = (int(n) for n in np.floor(places.min(axis=1)))
    right, back, top = (int(n) + 1 for n in np.ceil(places.max(axis=1)))
    return Box((k, j, i), (top, back, right))


def _interpolated(values: np.ndarray, voxelsToGrid: np.ndarray, box: Box) -> np.ndarray:
    """The map at the voxels of `box`, linearly between its own; outside it nothing is alike."""
    transform = vtk.vtkTransform()
    transform.SetMatrix(toMatrix(voxelsToGrid))
    reslice = vtk.vtkImageReslice()
    reslice.SetInputData(_image(values))
    reslice.SetResliceTransform(transform)
    reslice.SetInterpolationModeToLinear()
    reslice.SetBackgroundLevel(_UNLIKE)
    reslice.SetOutputSpacing(1.0, 1.0, 1.0)
    reslice.SetOutputOrigin(0.0, 0.0, 0.0)
    bounds = [(first, last - 1) for first, last in zip(box.start[::-1], box.stop[::-1], strict=True)]
    reslice.SetOutputExtent(*(number for pair in bounds for number in pair))
    reslice.Update()
    return vtk_to_numpy(reslice.GetOutput().GetPointData().GetScalars()).reshape(box.shape)


def _image(array: np.ndarray) -> vtk.vtkImageData:
    """An image of an array (k, j, i) whose coordinates are its indices."""
    image = vtk.vtkImageData()
    image.SetDimensions(*array.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(array).ravel(), deep=True))
    return image


def _addSegment(scan: SegmentedScan, mask: np.ndarray, box: Box) -> str:
    """A segment with a label map of its own, so that no other loses a voxel; gives its id."""
    segmentation = scan.segmentation.GetSegmentation()
    taken = {segmentation.GetSegment(name).GetName() for name in segmentation.GetSegmentIDs()}
    number = next(n for n in range(1, len(taken) + 2) if _SEGMENT_NAME.format(n) not in taken)
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


def _nothingAlike(threshold: float) -> DiffusionSegmentError:
    return DiffusionSegmentError(
        ErrorCode.OPTION,
        f"No voxel around the point has a similarity of {threshold:.2f}.",
        hint="Lower the threshold, or place the point again.",
    )
