"""Maps of uncertainty as volumes with a geometry of their own: from an answer into their nodes.

The worker answers them on the grid of the model, which is coarser than the scan; Slicer interpolates them linearly.
Scenes of earlier versions have them in the voxels of the scan, which is another geometry like any.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.buffers import geometry_of, open_buffer
from DiffusionSegmentBackend.protocol.messages import Corrected, Result
from numpy.typing import NDArray

from .overlay import OverlayKind
from .volumes import ijkToLPS, placeOver, setVoxels

MAPPED_FILES_CAN_BE_DELETED = os.name == "posix"


@dataclass(frozen=True)
class OverlayMap:
    """Voxels (k, j, i), and the 4x4 matrix from their indices (i, j, k, 1) to those of the scan."""

    voxels: NDArray[Any]
    toScan: NDArray[np.float64]


def openUncertaintyMaps(answer: Result | Corrected, sentToLPS: NDArray[np.float64]) -> dict[OverlayKind, OverlayMap]:
    """The maps of an answer: memory-mapped files where the system can delete a mapped file, else copies.

    `sentToLPS` is the 4x4 matrix from (i, j, k, 1) to LPS mm of the scan that was sent; it may have been moved since.

    Raises:
        DiffusionSegmentError: GEOMETRY for a map that is no volume, PROTOCOL or INPUT_MISSING for a damaged buffer.
    """
    references = {
        OverlayKind.UNCERTAINTY: answer.uncertainty,
        OverlayKind.MUTUAL_INFORMATION: answer.mutual_information,
    }
    maps = {}
    for kind, reference in references.items():
        voxels = open_buffer(reference, writable=MAPPED_FILES_CAN_BE_DELETED)
        toLPS = geometry_of(reference)
        if voxels.ndim != 3 or not voxels.size or not np.linalg.det(toLPS[:3, :3]):
            raise DiffusionSegmentError(
                ErrorCode.GEOMETRY, "A map of the result is no volume.", hint="Segment the scan again."
            )
        maps[kind] = OverlayMap(voxels, np.linalg.inv(sentToLPS) @ toLPS)
    return maps


def putMap(node: slicer.vtkMRMLScalarVolumeNode, values: OverlayMap, inputNode: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Put a map into a volume, where the scan is now, under its transform; the volume owns the voxels afterwards."""
    placeOver(node, inputNode, values.toScan)
    setVoxels(node, values.voxels)


def toVoxelsOf(inputNode: slicer.vtkMRMLScalarVolumeNode, node: slicer.vtkMRMLScalarVolumeNode) -> NDArray[np.float64]:
    """4x4 matrix from the indices (i, j, k, 1) of an overlay to those of its scan, both under the same transform."""
    toScan: NDArray[np.float64] = np.linalg.inv(ijkToLPS(inputNode)) @ ijkToLPS(node)
    return toScan
