"""Volumes as memory-mapped raw files, for both sides of the worker's pipe (numpy only)."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DiffusionSegmentError, ErrorCode, from_os_error
from .messages import VolumeReference

_DTYPES = {"uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"}


def write_buffer(path: Path, array: NDArray[Any], ijk_to_lps: NDArray[Any]) -> VolumeReference:
    """Write `array` (k, j, i[, components]) to `path` and name it for a message.

    Raises:
        DiffusionSegmentError: DISK_FULL or OUTPUT_UNWRITABLE; no partial file is left.
    """
    try:
        with open(path, "wb") as file:
            # Not tofile, which does not notice that the last block did not fit on the disk.
            file.write(np.ascontiguousarray(array).data)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise from_os_error(error, path) from error
    return VolumeReference(
        path=str(path),
        shape=tuple(int(n) for n in array.shape),
        dtype=array.dtype.name,
        ijk_to_lps=tuple(float(v) for v in np.asarray(ijk_to_lps, dtype=np.float64).ravel()),
    )


def write_part(path: Path, start: int, data: memoryview) -> None:
    """Write bytes into a file, from `start` on; a file that does not exist is made, for the user alone.

    Raises:
        OSError: What does not fit on the disk too.
    """
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb", buffering=0) as file:
        file.seek(start)
        if file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def open_buffer(reference: VolumeReference, *, writable: bool = False) -> NDArray[Any]:
    """Map the array into memory, after checking that the file is as large as the message says.

    It is read-only, or `writable`: what is written then stays in this process's memory and never reaches the file.

    Raises:
        DiffusionSegmentError: PROTOCOL for an unknown type or a wrong size, INPUT_MISSING without the file.
    """
    shape = tuple(int(n) for n in reference.shape)
    if reference.dtype not in _DTYPES or len(shape) not in (3, 4) or min(shape) < 1 or len(reference.ijk_to_lps) != 16:
        raise DiffusionSegmentError(ErrorCode.PROTOCOL, f"A volume of {reference.dtype} {shape} is not supported.")
    dtype = np.dtype(reference.dtype)
    if not os.path.isfile(reference.path):
        raise DiffusionSegmentError(ErrorCode.INPUT_MISSING, f"The volume buffer {reference.path} is gone.")
    if os.path.getsize(reference.path) != math.prod(shape) * dtype.itemsize:
        raise DiffusionSegmentError(ErrorCode.PROTOCOL, f"The volume buffer {reference.path} has the wrong size.")
    return np.memmap(reference.path, dtype=dtype, mode="c" if writable else "r", shape=shape)


def geometry_of(reference: VolumeReference) -> NDArray[np.float64]:
    """The reference's 4x4 matrix from (i, j, k, 1) to LPS millimetres.

    Raises:
        DiffusionSegmentError: PROTOCOL for another number of values than 16.
    """
    if len(reference.ijk_to_lps) != 16:
        raise DiffusionSegmentError(ErrorCode.PROTOCOL, "The matrix of a volume does not have 16 values.")
    return np.asarray(reference.ijk_to_lps, dtype=np.float64).reshape(4, 4)
