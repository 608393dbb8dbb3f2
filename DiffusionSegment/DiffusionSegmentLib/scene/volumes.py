"""Between MRML volumes and arrays (k, j, i) with their matrix to LPS millimetres."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from slicer.util import arrayFromVolume
from vtk.util.numpy_support import numpy_to_vtk

RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# A length of an axis, or a volume spanned by unit axes, that counts as none.
_FLAT = 1e-6


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


def volumeBuffer(
    node: slicer.vtkMRMLScalarVolumeNode, *, placed: slicer.vtkMRMLTransformableNode | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (k, j, i), a view, and the matrix to LPS mm with the linear parent transforms applied.

    The transforms are those of the node, or of the one that shows it in the scene (`placed`). They may turn, move and
    scale.

    Raises:
        DiffusionSegmentError: INPUT_SHAPE for an empty, colour or label volume; GEOMETRY under a transform that bends,
            flattens or mirrors.
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
    toWorld = parentToWorld(placed if placed is not None else node)
    _checkTransform(toWorld, node.GetName())
    return array, RAS_FROM_LPS @ toWorld @ RAS_FROM_LPS @ ijkToLPS(node)


def _checkTransform(toWorld: np.ndarray, name: str) -> None:
    """Refuse a place in which a segmentation would mean nothing.

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
    """A number that no other voxels have had in this process: it grows with every change that is told of.

    Who writes into the array says so with `arrayFromVolumeModified`, as everywhere in Slicer.
    """
    return int(node.GetImageData().GetMTime())


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
    """A scalar volume of `array` (k, j, i) in the place of `reference`: an existing node, or a new one.

    The array belongs to the node afterwards, see `setVoxels`.
    """
    if node is None:
        node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    matrix = vtk.vtkMatrix4x4()
    reference.GetIJKToRASMatrix(matrix)
    node.SetIJKToRASMatrix(matrix)
    node.SetAndObserveTransformNodeID(reference.GetTransformNodeID())
    setVoxels(node, array)
    return node


def setVoxels(node: slicer.vtkMRMLVolumeNode, array: np.ndarray) -> None:
    """Make `array` (k, j, i) the voxels of a volume.

    One that is contiguous and may be written is not copied: from then on it belongs to the node.
    """
    if not (array.flags.c_contiguous and array.flags.writeable):
        array = np.array(array, order="C")
    image = vtk.vtkImageData()
    image.SetDimensions(*array.shape[::-1])
    # The vtk array keeps the numpy array alive, mapped files too.
    scalars = numpy_to_vtk(array.reshape(-1), deep=False)
    scalars.SetName("ImageScalars")
    image.GetPointData().SetScalars(scalars)
    node.SetAndObserveImageData(image)
