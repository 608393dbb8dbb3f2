"""The scan of the last request, kept on disk so that further requests on it need not write it again."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from DiffusionSegmentBackend.protocol.buffers import write_buffer
from DiffusionSegmentBackend.protocol.messages import VolumeReference
from numpy.typing import NDArray


class ScanFile:
    """At most one file of voxels that later requests may reuse."""

    def __init__(self) -> None:
        self._kept: VolumeReference | None = None
        self._version: int | None = None

    def put(
        self, folder: Path, array: NDArray[Any], ijkToLPS: NDArray[np.float64], *, version: int | None, requestId: str
    ) -> VolumeReference:
        """Write the voxels to a file, unless the last file has the same version.

        Args:
            folder: session folder.
            array: voxels (k, j, i).
            ijkToLPS: 4x4 matrix from (i, j, k, 1) to LPS mm.
            version: identifies the voxels; with None the file belongs to this request only.
            requestId: part of the file name.

        Raises:
            DiffusionSegmentError: DISK_FULL or OUTPUT_UNWRITABLE; no partial file is left.
        """
        if version is None:
            return write_buffer(folder / f"{requestId}-request-volume.raw", array, ijkToLPS)
        kept = self._kept
        if kept is not None and self._version == version and self._isCurrent(kept, folder, array):
            return replace(kept, ijk_to_lps=tuple(float(v) for v in np.asarray(ijkToLPS, np.float64).ravel()))
        self.forget()
        # A new name each time: the worker may still have mapped the previous file.
        self._kept = write_buffer(folder / f"scan-{requestId}.raw", array, ijkToLPS)
        self._version = version
        return self._kept

    def keeps(self, reference: VolumeReference) -> bool:
        """Whether this file is kept after its request."""
        return self._kept is not None and reference.path == self._kept.path

    def forget(self) -> None:
        """Remove the file."""
        kept, self._kept = self._kept, None
        if kept is not None:
            # On Windows a mapped file cannot be deleted; it is removed with the session folder.
            with contextlib.suppress(OSError):
                Path(kept.path).unlink()

    @staticmethod
    def _isCurrent(kept: VolumeReference, folder: Path, array: NDArray[Any]) -> bool:
        """Whether the file still exists with this shape; the system may have cleaned the temporary folder."""
        path = Path(kept.path)
        same = kept.shape == array.shape and kept.dtype == array.dtype.name
        return same and path.parent == folder and path.is_file() and path.stat().st_size == array.nbytes
