"""The label maps inside a segmentation node that is read but not changed: on other voxels, they are resampled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from vtk.util.numpy_support import vtk_to_numpy

from .box import Box
from .layers import BINARY, Layer, ScanGrid, gridOfScan, layerOf, layerValues
from .segmented_scan import SegmentedScan

# Share of a resampled layer that must lie inside the volume.
_MIN_INSIDE = 0.5


@dataclass(frozen=True)
class ReadLayers:
    """Layers in the voxels of the input volume, and whether any of them was resampled to these voxels."""

    layers: tuple[Layer, ...]
    resampled: bool


def readLayers(scan: SegmentedScan) -> ReadLayers:
    """Every label map of the segmentation, by the nearest voxel where its voxels are not those of the input volume.

    Raises:
        DiffusionSegmentError: INPUT_MISSING or GEOMETRY, see `layers.layersOf`, but not for another grid; GEOMETRY
            where most of a resampled layer lies outside the volume, as for another patient.
    """
    grid = gridOfScan(scan)
    layers, resampled = [], False
    for number in range(scan.segmentation.GetSegmentation().GetNumberOfLayers(BINARY)):
        try:
            layer = layerOf(scan, number, grid)
        except DiffusionSegmentError as error:
            if error.code is not ErrorCode.GEOMETRY:
                raise
            layer, resampled = _resampled(scan, number, grid), True
        layers.append(layer)
    return ReadLayers(tuple(layers), resampled)


def _resampled(scan: SegmentedScan, number: int, grid: ScanGrid) -> Layer:
    """A layer on the voxels of the whole input volume."""
    reference = slicer.vtkOrientedImageData()
    reference.SetExtent(scan.input.GetImageData().GetExtent())
    reference.SetGeometryFromImageToWorldMatrix(grid.toRAS)
    reference.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    source = scan.segmentation.GetSegmentation().GetLayerDataObject(number, BINARY)
    image = slicer.vtkOrientedImageData()
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(source, reference, image, False)
    if _volume(image) < _MIN_INSIDE * _volume(source):
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY,
            f"Most of {scan.segmentation.GetName()} lies outside {scan.input.GetName()}.",
            hint="Choose the segmentation of this scan.",
        )
    return Layer(image, Box.ofShape(scan.box.shape), layerValues(scan, number), grid.toRAS)


def _volume(image: slicer.vtkOrientedImageData) -> float:
    """Volume of the voxels that are not 0, in mm^3."""
    voxels = vtk_to_numpy(image.GetPointData().GetScalars())
    return float(np.count_nonzero(voxels)) * float(np.prod(image.GetSpacing()))
