"""The organs' probabilities in a result folder: `probabilities/liver.nii.gz` and so on, in the scan's geometry.

A file holds 8 bits a voxel with the slope 1/255 in its header, so that every reader of NIfTI gives 0 to 1, in steps of
0.4 %.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..imaging.shear import straightened
from ..imaging.volume import Volume
from ..imaging.volume_io import write_volume
from ..models.manifest import ModelDescription
from ..pipeline.memory import in_memory, memory_errors, on_disk
from ..pipeline.restore import restore_map
from ..pipeline.session import Session
from ..schema.output_kinds import PROBABILITIES

_LEVELS = 255


def write_probabilities(
    session: Session, description: ModelDescription, index_to_lps: NDArray[np.float64], folder: Path
) -> tuple[str, ...]:
    """Write the probability of each organ asked for, one organ at a time; returns the files' names.

    Raises:
        DiffusionSegmentError: OUT_OF_MEMORY, OUTPUT_UNWRITABLE or DISK_FULL.
    """
    (folder / PROBABILITIES).mkdir()
    allocate = on_disk(folder) if session.memory_plan.on_disk else in_memory
    ensemble, offset = session.maps.ensemble, session.prediction.offset
    names = []
    for label in description.labels:
        if session.wanted and label.value not in session.wanted:
            continue
        with torch.inference_mode(), memory_errors():
            share = restore_map(ensemble[label.value].float().numpy(), offset, session.grid, allocate=allocate)
        levels = np.empty(share.shape, dtype=np.uint8)
        for level, part in zip(levels, share, strict=True):
            level[...] = np.rint(part * _LEVELS)
        del share
        names.append(f"{PROBABILITIES}/{label.name}.nii.gz")
        write_volume(straightened(Volume(levels, index_to_lps)), folder / names[-1], slope=1 / _LEVELS)
    return tuple(names)
