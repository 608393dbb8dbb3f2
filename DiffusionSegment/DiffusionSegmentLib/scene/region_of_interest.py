"""The box outside which nothing is segmented: a markups ROI as the matrix that the worker is sent."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode

from .volumes import RAS_FROM_LPS, ijkToLPS, parentToWorld, toArray

_CORNERS = np.array([(*corner, 1.0) for corner in product((-1.0, 1.0), repeat=3)]).T


def regionOfInterest(
    node: slicer.vtkMRMLMarkupsROINode, inputNode: slicer.vtkMRMLScalarVolumeNode
) -> tuple[float, ...]:
    """The 16 numbers, row by row, of the matrix from the cube -1..1 to the oriented box, in LPS mm of the world.

    Rotation and linear parent transforms of the box are in it.

    Raises:
        DiffusionSegmentError: OPTION for a box that was not placed, has no size or does not touch the scan; GEOMETRY
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
    if _apart(cubeToLPS, _scanBox(inputNode)):
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"The region of interest {name} does not touch {inputNode.GetName()}.",
            hint="Move it onto the scan, or choose Whole scan.",
        )
    return tuple(float(value) for value in cubeToLPS.ravel())


def placeAround(node: slicer.vtkMRMLMarkupsROINode, inputNode: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Put a box that was never placed around the whole scan, where its handles can be dragged."""
    if node.GetNumberOfDefinedControlPoints() or inputNode.GetImageData() is None:
        return
    bounds = np.zeros(6)
    inputNode.GetRASBounds(bounds)
    low, high = bounds[0::2], bounds[1::2]
    node.SetCenterWorld(*((low + high) / 2.0).tolist())
    node.SetSizeWorld(*(high - low).tolist())


def _scanBox(inputNode: slicer.vtkMRMLScalarVolumeNode) -> np.ndarray:
    """The matrix from the cube -1..1 to the scan, voxels to their edges, in LPS mm of the world."""
    count = np.array(inputNode.GetImageData().GetDimensions())
    cubeToIJK = np.diag([*(count / 2.0), 1.0])
    cubeToIJK[:3, 3] = (count - 1) / 2.0
    return RAS_FROM_LPS @ parentToWorld(inputNode) @ RAS_FROM_LPS @ ijkToLPS(inputNode) @ cubeToIJK


def _apart(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether a plane lies between two boxes: by the theorem of the separating axis."""
    edges = [matrix[:3, :3].T for matrix in (one, other)]
    faces = [np.cross(a, b) for three in edges for a, b in combinations(three, 2)]
    crossed = [np.cross(a, b) for a in edges[0] for b in edges[1]]
    axes = np.array([axis for axis in faces + crossed if np.linalg.norm(axis) > 1e-9])
    first, second = (axes @ (matrix @ _CORNERS)[:3] for matrix in (one, other))
    apart = (first.max(axis=1) <= second.min(axis=1)) | (second.max(axis=1) <= first.min(axis=1))
    return bool(apart.any())
