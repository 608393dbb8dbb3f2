"""Uncertainty and mutual information of a session: on the model's grid, or in the voxels of the scan.

Messages carry them on the grid, which is many times smaller than the scan; files have the geometry of the scan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..imaging.volume import Box, Volume
from .memory import Allocate, in_memory, memory_errors
from .restore import interpolated, map_on_grid, restore_map
from .session import Session
from .uncertainty import entropy


@dataclass(frozen=True)
class GridMaps:
    """Maps of a session, float32, 0..1, in the geometry of a box of the model's grid, as of `restore.map_on_grid`."""

    uncertainty: Volume
    mutual_information: Volume


def uncertainty_on_grid(session: Session) -> GridMaps:
    """Both maps on the model's grid, 0 at scribbled voxels of the grid.

    Raises:
        DiffusionSegmentError: OUT_OF_MEMORY.
    """
    with torch.inference_mode(), memory_errors():
        maps = _values(session)
        if session.scribbles is not None:
            maps = [values.masked_fill(session.scribbles > 0, 0) for values in maps]
        uncertainty, information = (
            map_on_grid(values.numpy(), session.prediction.offset, session.grid) for values in maps
        )
    return GridMaps(uncertainty, information)


def uncertainty_of_scan(
    session: Session, allocate: Allocate = in_memory
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Uncertainty and mutual information (k, j, i) in the scan's own geometry."""
    offset, grid = session.prediction.offset, session.grid
    uncertainty, information = (
        restore_map(values.numpy(), offset, grid, allocate=allocate) for values in _values(session)
    )
    return uncertainty, information


def uncertainty_in_box(
    session: Session, box: Box, scribbles: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Uncertainty and mutual information (k, j, i) in a box of the scan, 0 at scribbled voxels.

    Args:
        session: the session with the scribbles.
        box: canonical voxels (z, y, x) of the scan.
        scribbles: the scribbles (k, j, i) in the scan's own geometry.

    Raises:
        DiffusionSegmentError: OUT_OF_MEMORY.
    """
    offset, grid = session.prediction.offset, session.grid
    marked = grid.order.apply(scribbles)[box] > 0
    with torch.inference_mode(), memory_errors():
        canonical = (
            np.where(marked, 0, interpolated(values[None], offset, grid, box)[0].numpy()).astype(np.float32)
            for values in _values(session)
        )
        uncertainty, information = (np.ascontiguousarray(grid.order.undo(values)) for values in canonical)
    return uncertainty, information


def _values(session: Session) -> list[Tensor]:
    """Both maps (z, y, x), float32, on the box of the prediction."""
    return [entropy(session.maps.ensemble), session.maps.mutual_information.float()]
