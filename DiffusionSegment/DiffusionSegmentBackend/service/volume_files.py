"""The volumes of a session on the server's disk: received in slabs, read by the worker, fetched in slabs."""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import DiffusionSegmentError, ErrorCode, from_os_error
from ..protocol.messages import VolumeReference
from ..protocol.slabs import Bytes, Codec, decode_slab, encode_slab, slab_count, slab_range, volume_bytes

# Of sessions, volumes and runs.
IDENTIFIER = re.compile(r"[0-9a-f]{32}")
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
_MAX_AXIS = 2**20
_MAX_AXES = 4


@dataclass
class VolumeFile:
    """A volume; `missing` are the slabs that have not been received yet."""

    path: Path
    shape: tuple[int, ...]
    dtype: str
    missing: set[int] = field(default_factory=set)

    @property
    def total(self) -> int:
        """Its bytes."""
        return volume_bytes(self.shape, self.dtype)

    @property
    def itemsize(self) -> int:
        """The bytes of a voxel."""
        return int(np.dtype(self.dtype).itemsize)

    def describes(self, reference: VolumeReference) -> bool:
        """Whether a message refers to it with its true shape and type."""
        return tuple(reference.shape) == self.shape and reference.dtype == self.dtype


def declare(folder: Path, shape: tuple[int, ...], dtype: str, *, max_bytes: int) -> VolumeFile:
    """An empty volume in a folder, which is filled by `write_slab`.

    Raises:
        DiffusionSegmentError: PROTOCOL for a shape or type that no volume has; SERVER_LIMIT for more than `max_bytes`;
            DISK_FULL or OUTPUT_UNWRITABLE.
    """
    if dtype not in DTYPES or not 3 <= len(shape) <= _MAX_AXES or not all(1 <= n <= _MAX_AXIS for n in shape):
        raise DiffusionSegmentError(ErrorCode.PROTOCOL, "A volume of this type and shape is not supported.")
    total = volume_bytes(shape, dtype)
    if total > max_bytes:
        raise DiffusionSegmentError(
            ErrorCode.SERVER_LIMIT,
            f"The volume has {total / 1e9:.1f} GB; the server takes {max_bytes / 1e9:.1f} GB.",
            hint="Crop the scan, or segment it on this computer.",
        )
    path = folder / f"{secrets.token_hex(16)}.raw"
    try:
        with open(path, "xb") as file:
            file.truncate(total)
    except OSError as error:
        raise from_os_error(error, "the volume") from error
    return VolumeFile(path, shape, dtype, set(range(slab_count(total))))


def write_slab(volume: VolumeFile, index: int, encoded: Bytes, codec: Codec) -> None:
    """Decode a slab into its volume.

    Raises:
        DiffusionSegmentError: PROTOCOL for a slab that the volume does not have, or that is damaged; DISK_FULL or
            OUTPUT_UNWRITABLE.
    """
    part = slab_range(volume.total, index)
    data = decode_slab(encoded, volume.itemsize, codec, len(part))
    try:
        with open(volume.path, "r+b", buffering=0) as file:
            file.seek(part.start)
            written = file.write(data)
    except OSError as error:
        raise from_os_error(error, "the volume") from error
    if written == len(part):
        volume.missing.discard(index)


def read_slab(volume: VolumeFile, index: int, codec: Codec) -> Bytes:
    """A slab of a volume, encoded.

    Raises:
        DiffusionSegmentError: PROTOCOL for a slab that the volume does not have; SESSION_LOST for a file that is gone.
    """
    part = slab_range(volume.total, index)
    try:
        with open(volume.path, "rb", buffering=0) as file:
            file.seek(part.start)
            data = file.read(len(part))
    except OSError as error:
        raise DiffusionSegmentError(ErrorCode.SESSION_LOST, "The volume is gone.") from error
    return encode_slab(data, volume.itemsize, codec)


def of_answer(reference: VolumeReference, folder: Path) -> VolumeFile:
    """The volume of a worker's answer.

    Raises:
        DiffusionSegmentError: INTERNAL for a file outside the session's folder.
    """
    path = Path(reference.path)
    if path.parent != folder or not path.is_file() or os.path.islink(path):
        raise DiffusionSegmentError(ErrorCode.INTERNAL, "The worker named a file outside its session.")
    return VolumeFile(path, tuple(reference.shape), reference.dtype)
