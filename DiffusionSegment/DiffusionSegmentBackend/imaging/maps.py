"""Maps of a scan on disk."""

from __future__ import annotations

from pathlib import Path

from .shear import straightened
from .volume import Volume
from .volume_io import write_volume


def write_map(volume: Volume, path: Path) -> None:
    """Write a map of a scan where every reader of NIfTI finds it: on a straight grid where the scan is sheared.

    Raises:
        DiffusionSegmentError: as `write_volume`.
    """
    write_volume(straightened(volume), path)
