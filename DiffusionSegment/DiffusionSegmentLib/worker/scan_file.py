"""The scan of the last request, kept on disk for the next: one click writes it, all that follow find it there."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from DiffusionSegmentBackend.protocol.buffers import write_buffer
from DiffusionSegmentBackend.protocol.messages import VolumeReference


class ScanFile:
    """At most one file of voxels that may serve again."""

    def __init__(self) -> None:
        self._kept: VolumeReference | None = None
        self._version: int | None = None

    def put(
        self, folder: Path, array: np.ndarray, ijkToLPS: np.ndarray, *, version: int | None, requestId: str
    ) -> VolumeReference:
        """The voxels (k, j, i) in a file of `folder`, with their place; the file before, if `version` is the same.

        Without a version the file belongs to the request alone.

        Raises:
            DiffusionSegmentError: DISK_FULL or OUTPUT_UNWRITABLE; no partial file is left.
        """
        if version is None:
            return write_buffer(folder / f"{requestId}-request-volume.raw", array, ijkToLPS)
        kept = self._kept
        if kept is not None and self._version == version and self._holds(kept, folder, array):
            return replace(kept, ijk_to_lps=tuple(float(v) for v in np.asarray(ijkToLPS, np.float64).ravel()))
        self.forget()
        # Never the same name again: the worker may still have the voxels before in its memory, as this very file.
        self._kept = write_buffer(folder / f"scan-{requestId}.raw", array, ijkToLPS)
        self._version = version
        return self._kept

    def keeps(self, reference: VolumeReference) -> bool:
        """Whether this file is to outlive its request."""
        return self._kept is not None and reference.path == self._kept.path

    def forget(self) -> None:
        """Remove the file."""
        kept, self._kept = self._kept, None
        if kept is not None:
            # Windows keeps a file that the worker has mapped; it goes with the session's folder then.
            with contextlib.suppress(OSError):
                Path(kept.path).unlink()

    @staticmethod
    def _holds(kept: VolumeReference, folder: Path, array: np.ndarray) -> bool:
        """Systems sweep their temporary folders, and one that was filled up again is another."""
        path = Path(kept.path)
        same = kept.shape == array.shape and kept.dtype == array.dtype.name
        return same and path.parent == folder and path.is_file() and path.stat().st_size == array.nbytes
