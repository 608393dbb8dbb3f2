"""The label maps inside a segmentation node: several segments share a layer, and a layer may be cropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from numpy.typing import NDArray
from vtk.util.numpy_support import get_vtk_array_type, numpy_to_vtk, vtk_to_numpy

from .box import Box, boxOfGrid
from .segmented_scan import SegmentedScan
from .volumes import RAS_FROM_LPS, ijkToLPS, toArray, toMatrix

BINARY = str(slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName())


@dataclass
class Layer:
    """One label map of the node. `values`: segment ids and their values in this layer, which may not be the model's."""

    image: slicer.vtkOrientedImageData
    box: Box
    values: dict[str, int]
    gridToRAS: vtk.vtkMatrix4x4

    def voxels(self) -> NDArray[Any]:
        """The voxels (k, j, i) of `box`, a view; the box may extend beyond the input volume."""
        if self.box.empty:
            return np.zeros(self.box.shape, np.uint8)
        voxels: NDArray[Any] = vtk_to_numpy(self.image.GetPointData().GetScalars()).reshape(self.box.shape)
        return voxels

    def cover(self, box: Box) -> None:
        """Enlarge the layer so that it contains every voxel of `box`."""
        if self.box.contains(box):
            return
        union = self.box.joined(box)
        array = np.zeros(union.shape, self.voxels().dtype)
        if not self.box.empty:
            array[self.box.within(union)] = self.voxels()
            first = np.array(self.image.GetExtent()[4::-2]) + np.subtract(union.start, self.box.start)
        else:
            self.image.SetGeometryFromImageToWorldMatrix(self.gridToRAS)
            first = np.array(union.start)
        last = first + union.shape - 1
        self.image.SetExtent(*(int(n) for pair in zip(first[::-1], last[::-1], strict=True) for n in pair))
        scalars = numpy_to_vtk(array.ravel(), deep=True, array_type=get_vtk_array_type(array.dtype))
        scalars.SetName("labels")
        self.image.GetPointData().SetScalars(scalars)
        self.box = union


@dataclass(frozen=True)
class ScanGrid:
    """The 4x4 matrices from the voxels (i, j, k, 1) of the input volume to LPS and RAS mm."""

    toLPS: NDArray[np.float64]
    toRAS: vtk.vtkMatrix4x4


def layersOf(scan: SegmentedScan) -> list[Layer]:
    """Every label map of the segmentation, in the voxels of the input volume.

    Raises:
        DiffusionSegmentError: INPUT_MISSING or GEOMETRY when the nodes do not belong together, or the segmentation is
            stored as surfaces or on another grid.
    """
    grid = gridOfScan(scan)
    count = scan.segmentation.GetSegmentation().GetNumberOfLayers(BINARY)
    return [layerOf(scan, number, grid) for number in range(count)]


def gridOfScan(scan: SegmentedScan) -> ScanGrid:
    """The grid of the input volume, after a check of the nodes.

    Raises:
        DiffusionSegmentError: as `layersOf`, but for another grid.
    """
    scan.check()
    segmentation = scan.segmentation.GetSegmentation()
    if segmentation.GetNumberOfSegments() and segmentation.GetSourceRepresentationName() != BINARY:
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY,
            f"{scan.segmentation.GetName()} is stored as surfaces.",
            hint="Make the binary labelmap its source in the Segmentations module.",
        )
    toLPS = ijkToLPS(scan.input)
    return ScanGrid(toLPS, toMatrix(RAS_FROM_LPS @ toLPS))


def layerOf(scan: SegmentedScan, number: int, grid: ScanGrid) -> Layer:
    """Label map `number` of the segmentation, in the voxels of the input volume.

    Raises:
        DiffusionSegmentError: GEOMETRY for another grid.
    """
    image = scan.segmentation.GetSegmentation().GetLayerDataObject(number, BINARY)
    box = _boxOf(image, grid.toLPS, scan.segmentation.GetName())
    return Layer(image, box, layerValues(scan, number), grid.toRAS)


def layerValues(scan: SegmentedScan, number: int) -> dict[str, int]:
    """Ids of the segments of label map `number`, and their values in it."""
    segmentation = scan.segmentation.GetSegmentation()
    names = segmentation.GetSegmentIDsForLayer(number, BINARY)
    return {name: segmentation.GetSegment(name).GetLabelValue() for name in names}


def valueTable(values: dict[int, int], *, size: int = 256) -> NDArray[np.uint8]:
    """A look-up table (uint8) from voxel values to `values`; others become 0."""
    table = np.zeros(max([size, *(key + 1 for key in values)]), np.uint8)
    for key, value in values.items():
        table[key] = value
    return table


def lookUp(table: NDArray[np.uint8], voxels: NDArray[Any]) -> NDArray[np.uint8]:
    """Map voxels by a table; values beyond the table become 0."""
    indices = voxels
    if voxels.dtype != np.uint8:
        inTable = (voxels >= 0) & (voxels < len(table))
        indices = np.where(inTable, voxels, 0).astype(np.intp)
    mapped: NDArray[np.uint8] = table[indices]
    return mapped


def _boxOf(image: slicer.vtkOrientedImageData, grid: NDArray[np.float64], name: str) -> Box:
    extent = np.array(image.GetExtent()).reshape(3, 2)[::-1]
    first, shape = extent[:, 0], extent[:, 1] - extent[:, 0] + 1
    if shape.min() <= 0 or image.GetPointData().GetScalars() is None:
        return Box((0, 0, 0), (0, 0, 0))
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    toFirst = np.eye(4)
    toFirst[:3, 3] = first[::-1]
    return boxOfGrid(tuple(shape), RAS_FROM_LPS @ toArray(matrix) @ toFirst, grid, what=f"The segmentation {name}")
