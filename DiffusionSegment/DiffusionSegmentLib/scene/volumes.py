"""Between MRML volumes and arrays (k, j, i) with their matrix to LPS millimetres."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from slicer.util import arrayFromVolume, arrayFromVolumeModified, updateVolumeFromArray

RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def toArray(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    """4x4 float64 array of a vtk matrix."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def toMatrix(array: np.ndarray) -> vtk.vtkMatrix4x4:
    """vtk matrix of a 4x4 array."""
    matrix = vtk.vtkMatrix4x4()
    for row in range(4):
        for column in range(4):
            matrix.SetElement(row, column, float(array[row, column]))
    return matrix


def ijkToLPS(node: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    """The volume's own matrix from (i, j, k, 1) to LPS mm, without any parent transform."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return RAS_FROM_LPS @ toArray(matrix)


def volumeBuffer(node: slicer.vtkMRMLScalarVolumeNode) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (k, j, i), a view, and the matrix to LPS mm with the linear parent transforms applied.

    Raises:
        DiffusionSegmentError: INPUT_SHAPE for an empty, colour or label volume; GEOMETRY under a non-linear transform.
    """
    array = arrayFromVolume(node) if node.GetImageData() is not None else None
    if array is None or array.size == 0:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_SHAPE, f"The volume {node.GetName()} is empty.", hint="Choose a volume with an image."
        )
    if array.ndim != 3 or min(array.shape) < 2:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_SHAPE, f"{node.GetName()} is not a 3D scan with one value a voxel.", hint="Choose a CT."
        )
    return array, RAS_FROM_LPS @ parentToWorld(node) @ RAS_FROM_LPS @ ijkToLPS(node)


def parentToWorld(node: slicer.vtkMRMLTransformableNode) -> np.ndarray:
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


def updateScalarVolume(
    scene: slicer.vtkMRMLScene,
    array: np.ndarray,
    reference: slicer.vtkMRMLVolumeNode,
    name: str,
    node: slicer.vtkMRMLScalarVolumeNode | None = None,
) -> slicer.vtkMRMLScalarVolumeNode:
    """A scalar volume of `array` (k, j, i) in the place of `reference`; an existing node's memory is written again."""
    if node is None:
        node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    matrix = vtk.vtkMatrix4x4()
    reference.GetIJKToRASMatrix(matrix)
    node.SetIJKToRASMatrix(matrix)
    node.SetAndObserveTransformNodeID(reference.GetTransformNodeID())
    present = arrayFromVolume(node) if node.GetImageData() is not None else None
    if present is not None and present.shape == array.shape and present.dtype == array.dtype:
        present[:] = array
        arrayFromVolumeModified(node)
    else:
        updateVolumeFromArray(node, np.array(array))
    return node
