"""The region of interest of a run: a markups ROI as the matrix that is sent to the worker."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from numpy.typing import NDArray

from .volumes import RAS_FROM_LPS, ijkToLPS, parentToWorld, toArray

_CORNERS = np.array([(*corner, 1.0) for corner in product((-1.0, 1.0), repeat=3)]).T


def regionOfInterest(
    node: slicer.vtkMRMLMarkupsROINode, inputNode: slicer.vtkMRMLScalarVolumeNode
) -> tuple[float, ...]:
    """The matrix from the cube -1..1 to the oriented box in LPS mm of the world, as 16 numbers row by row.

    It includes rotation and linear parent transforms of the box.

    Raises:
        DiffusionSegmentError: OPTION for a box that is not defined, has no size or does not touch the scan; GEOMETRY
            under a non-linear transform.
    """
    name = node.GetName()
    size = np.array(node.GetSize())
    if node.GetNumberOfDefinedControlPoints() == 0 or not size.all():
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"The region of interest {name} is empty.",
            hint="Place it in a slice view, or choose Whole scan.",
        )
    box = np.diag([*(size / 2.0), 1.0])
    cubeToLPS = RAS_FROM_LPS @ parentToWorld(node) @ toArray(node.GetObjectToNodeMatrix()) @ box
    if _areSeparate(cubeToLPS, _scanBox(inputNode)):
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"The region of interest {name} does not touch {inputNode.GetName()}.",
            hint="Move it onto the scan, or choose Whole scan.",
        )
    return tuple(float(value) for value in cubeToLPS.ravel())


def placeAround(node: slicer.vtkMRMLMarkupsROINode, inputNode: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Place a box that is not defined yet around the whole scan."""
    if node.GetNumberOfDefinedControlPoints() or inputNode.GetImageData() is None:
        return
    bounds = np.zeros(6)
    inputNode.GetRASBounds(bounds)
    low, high = bounds[0::2], bounds[1::2]
    node.SetCenterWorld(*((low + high) / 2.0).tolist())
    node.SetSizeWorld(*(high - low).tolist())


def _scanBox(inputNode: slicer.vtkMRMLScalarVolumeNode) -> NDArray[np.float64]:
    """The matrix from the cube -1..1 to the scan, voxels to their edges, in LPS mm of the world."""
    count = np.array(inputNode.GetImageData().GetDimensions())
    cubeToIJK = np.diag([*(count / 2.0), 1.0])
    cubeToIJK[:3, 3] = (count - 1) / 2.0
    ijkToWorldLPS = RAS_FROM_LPS @ parentToWorld(inputNode) @ RAS_FROM_LPS @ ijkToLPS(inputNode)
    cubeToLPS: NDArray[np.float64] = ijkToWorldLPS @ cubeToIJK
    return cubeToLPS


def _areSeparate(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether a plane separates two boxes (separating axis theorem)."""
    edges = [matrix[:3, :3].T for matrix in (one, other)]
    normals = [np.cross(a, b) for axes in edges for a, b in combinations(axes, 2)]
    crossed = [np.cross(a, b) for a in edges[0] for b in edges[1]]
    axes = np.array([axis for axis in normals + crossed if np.linalg.norm(axis) > 1e-9])
    first, second = (axes @ (matrix @ _CORNERS)[:3] for matrix in (one, other))
    separate = (first.max(axis=1) <= second.min(axis=1)) | (second.max(axis=1) <= first.min(axis=1))
    return bool(separate.any())
