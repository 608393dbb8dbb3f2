"""Undo and redo of a change of an overlay: of voxels inside a box, or of all voxels and the geometry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
from numpy.typing import NDArray
from slicer.util import arrayFromVolume, arrayFromVolumeModified

from .patch import Patch, patchOf, wholePatch
from .volumes import RAS_FROM_LPS, ijkToLPS, setVoxels, toMatrix


@dataclass(frozen=True)
class OverlayState:
    """Voxels of an overlay at one moment, and its own matrix from (i, j, k, 1) to LPS mm."""

    node: slicer.vtkMRMLScalarVolumeNode
    voxels: NDArray[Any]
    ijkToLPS: NDArray[np.float64]


@dataclass(frozen=True)
class OverlayChange:
    """An overlay before and after a step; `voxels` is None where none changed.

    `matrices` are those before and after where shape or geometry changed, as by the first correction in a scene of an
    earlier version; `voxels` are all of them then.
    """

    node: slicer.vtkMRMLScalarVolumeNode
    voxels: Patch | None
    matrices: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    @property
    def bytes(self) -> int:
        """Compressed size of the voxels."""
        return 0 if self.voxels is None else self.voxels.bytes


def overlayState(node: slicer.vtkMRMLScalarVolumeNode) -> OverlayState:
    """The present state of an overlay; its voxels are copied."""
    return OverlayState(node, arrayFromVolume(node).copy(), ijkToLPS(node))


def overlayChange(before: OverlayState) -> OverlayChange:
    """What changed in an overlay since an earlier state."""
    node, voxels = before.node, arrayFromVolume(before.node)
    matrix = ijkToLPS(node)
    if before.voxels.shape == voxels.shape and np.allclose(before.ijkToLPS, matrix):
        return OverlayChange(node, patchOf(before.voxels, voxels))
    return OverlayChange(node, wholePatch(before.voxels, voxels), (before.ijkToLPS, matrix))


def restoreOverlay(change: OverlayChange, *, backwards: bool) -> None:
    """Undo (`backwards`) or redo a change."""
    if change.voxels is None:
        return
    values = change.voxels.sides(backwards)[1]
    if change.matrices is None:
        arrayFromVolume(change.node)[change.voxels.box.slices] = values
        arrayFromVolumeModified(change.node)
    else:
        matrix = change.matrices[0 if backwards else 1]
        change.node.SetIJKToRASMatrix(toMatrix(RAS_FROM_LPS @ matrix))
        setVoxels(change.node, values)
