"""The samples of a run as label maps in the scan's own geometry: answers that the model also thought possible."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DiffusionSegmentError, ErrorCode
from .memory import memory_errors
from .progress import Progress, silent
from .restore import in_native_box, interpolated, native_box
from .session import Session

_SLAB = 16


def alternatives(
    session: Session, *, progress: Progress = silent
) -> tuple[NDArray[np.uint8], tuple[slice, slice, slice]]:
    """Label maps (K, k, j, i), uint8, of the K samples, and the box (k, j, i) of the scan that they fill.

    Raises:
        DiffusionSegmentError: OPTION when no sample found an organ, OUT_OF_MEMORY.
    """
    grid, offset, samples = session.grid, session.prediction.offset, session.prediction.sample_labels
    classes = session.prediction.pre.shape[0]
    found = torch.stack([sample > 0 for sample in samples]).any(dim=0)
    if not bool(found.any()):
        raise DiffusionSegmentError(ErrorCode.OPTION, "No sample holds an organ.", hint="Draw more samples.")
    place = native_box(found, offset, grid)
    maps = []
    with torch.inference_mode(), memory_errors():
        for n, sample in enumerate(samples):
            progress("alternatives", n, len(samples))
            maps.append(_restored(sample, classes, place, session))
    progress("alternatives", len(samples), len(samples))
    own = [np.ascontiguousarray(grid.order.undo(labels)) for labels in maps]
    return np.stack(own), in_native_box(place, grid)


def _restored(sample: Tensor, classes: int, place: tuple[slice, slice, slice], session: Session) -> NDArray[np.uint8]:
    """One label map at the native canonical voxels of a box: the arg max of its interpolated indicator functions."""
    indicators = torch.nn.functional.one_hot(sample.long(), classes).movedim(-1, 0).float()
    z, y, x = place
    slabs = [
        interpolated(
            indicators, session.prediction.offset, session.grid, (slice(low, min(low + _SLAB, z.stop)), y, x)
        ).argmax(dim=0)
        for low in range(z.start, z.stop, _SLAB)
    ]
    return torch.cat(slabs).byte().numpy()
