"""Conversion between MRML volumes and arrays (k, j, i) with their matrix to LPS mm."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from numpy.typing import NDArray
from slicer.util import arrayFromVolume
from vtk.util.numpy_support import numpy_to_vtk

RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# A length of an axis, or a volume spanned by unit axes, below this counts as 0.
_FLAT = 1e-6


def toArray(matrix: vtk.vtkMatrix4x4) -> NDArray[np.float64]:
    """4x4 float64 array of a vtk matrix."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def toMatrix(array: NDArray[Any]) -> vtk.vtkMatrix4x4:
    """vtk matrix of a 4x4 array."""
    matrix = vtk.vtkMatrix4x4()
    for row in range(4):
        for column in range(4):
            matrix.SetElement(row, column, float(array[row, column]))
    return matrix


def ijkToLPS(node: slicer.vtkMRMLVolumeNode) -> NDArray[np.float64]:
    """The volume's own matrix from (i, j, k, 1) to LPS mm, without any parent transform."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    toLPS: NDArray[np.float64] = RAS_FROM_LPS @ toArray(matrix)
    return toLPS


def volumeBuffer(
    node: slicer.vtkMRMLScalarVolumeNode, *, transformed: slicer.vtkMRMLTransformableNode | None = None
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Voxels and geometry of a volume with its linear parent transforms applied.

    Args:
        node: the volume.
        transformed: the node whose parent transforms are applied; default: the volume. They may rotate, translate and
            scale.

    Returns:
        The voxels (k, j, i), a view, and the 4x4 matrix from (i, j, k, 1) to LPS mm.

    Raises:
        DiffusionSegmentError: INPUT_SHAPE for an empty, colour or label volume; GEOMETRY under a transform that is
            not linear, singular or mirrors.
    """
    array = arrayFromVolume(node) if node.GetImageData() is not None else None
    if array is None or array.size == 0:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_SHAPE, f"The volume {node.GetName()} is empty.", hint="Choose a volume with an image."
        )
    if array.ndim != 3 or min(array.shape) < 2:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_SHAPE, f"{node.GetName()} is not a 3D scan with one value per voxel.", hint="Choose a scan."
        )
    toWorld = parentToWorld(transformed if transformed is not None else node)
    _checkTransform(toWorld, node.GetName())
    return array, RAS_FROM_LPS @ toWorld @ RAS_FROM_LPS @ ijkToLPS(node)


def _checkTransform(toWorld: NDArray[np.float64], name: str) -> None:
    """Refuse singular, perspective and mirroring transforms.

    Raises:
        DiffusionSegmentError: GEOMETRY.
    """
    axes = toWorld[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    finite = bool(np.isfinite(toWorld).all())
    if not finite or lengths.min() < _FLAT or abs(np.linalg.det(axes / lengths)) < _FLAT:
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY,
            f"The transform of {name} flattens it to nothing.",
            hint="Correct its matrix in the module Transforms, or remove the scan from it.",
        )
    if np.abs(toWorld[3] - (0.0, 0.0, 0.0, 1.0)).max() > _FLAT:
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY,
            f"The transform of {name} draws it in perspective.",
            hint="Correct its matrix in the module Transforms, or remove the scan from it.",
        )
    if np.linalg.det(axes) < 0:
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY,
            f"The transform of {name} mirrors it: left and right would be exchanged.",
            hint="Remove the scan from it; if the scan itself is stored mirrored, harden the transform.",
        )


def scanVersion(node: slicer.vtkMRMLScalarVolumeNode) -> int:
    """A number that identifies the current voxels in this process; it grows with every modification.

    Code that writes into the array has to call `arrayFromVolumeModified`, as everywhere in Slicer.
    """
    return int(node.GetImageData().GetMTime())


def parentToWorld(node: slicer.vtkMRMLTransformableNode) -> NDArray[np.float64]:
    """4x4 matrix, RAS mm, of all parent transforms of a node.

    Raises:
        DiffusionSegmentError: GEOMETRY under a non-linear transform.
    """
    transform = node.GetParentTransformNode()
    if transform is None:
        return np.eye(4)
    if not transform.IsTransformToWorldLinear():
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY, f"{node.GetName()} is under a non-linear transform.", hint="Harden the transform first."
        )
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(matrix)
    return toArray(matrix)


def placeOver(
    node: slicer.vtkMRMLScalarVolumeNode, reference: slicer.vtkMRMLVolumeNode, toReference: NDArray[np.float64]
) -> None:
    """Set the geometry of a volume by its place in another one, under the transform of that.

    `toReference` is the 4x4 matrix from the indices (i, j, k, 1) of `node` to those of `reference`.
    """
    node.SetIJKToRASMatrix(toMatrix(RAS_FROM_LPS @ ijkToLPS(reference) @ toReference))
    node.SetAndObserveTransformNodeID(reference.GetTransformNodeID())


def setVoxels(node: slicer.vtkMRMLVolumeNode, array: NDArray[Any]) -> None:
    """Set the voxels of a volume.

    An array (k, j, i) that is contiguous and writable is not copied: the node owns it from then on.
    """
    if not (array.flags.c_contiguous and array.flags.writeable):
        array = np.array(array, order="C")
    image = vtk.vtkImageData()
    image.SetDimensions(*array.shape[::-1])
    # The vtk array holds a reference to the numpy array, also to a memory-mapped file.
    scalars = numpy_to_vtk(array.reshape(-1), deep=False)
    scalars.SetName("ImageScalars")
    image.GetPointData().SetScalars(scalars)
    node.SetAndObserveImageData(image)
