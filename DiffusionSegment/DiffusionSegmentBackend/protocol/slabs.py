"""Volumes between a computer and a server: pieces of at most SLAB_BYTES, each compressed for itself.

Needs numpy alone; where the package zstandard is installed on both sides, there is a faster codec.

Both sides know how many bytes a slab has when it is decoded, so that one that
would grow beyond them is refused while it is being decompressed.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from enum import StrEnum
from importlib.util import find_spec

import numpy as np

from ..errors import DiffusionSegmentError, ErrorCode

SLAB_BYTES = 8 * 1024 * 1024
# With the growth of data that cannot be compressed.
MAX_ENCODED_BYTES = SLAB_BYTES + SLAB_BYTES // 256 + 1024
_LEVEL = 1

Bytes = bytes | bytearray | memoryview


class Codec(StrEnum):
    """How the bytes of a slab travel; compressed, the first bytes of all values come before all second ones."""

    RAW = "raw"
    ZSTD = "zstd"
    ZLIB = "zlib"


def installed_codecs() -> tuple[Codec, ...]:
    """The codecs of this computer."""
    return tuple(codec for codec in Codec if codec is not Codec.ZSTD or find_spec("zstandard") is not None)


def codec_named(name: str) -> Codec:
    """The codec of a name.

    Raises:
        DiffusionSegmentError: PROTOCOL for a codec that does not exist here.
    """
    if name not in installed_codecs():
        raise DiffusionSegmentError(ErrorCode.PROTOCOL, "A slab has an unknown codec.")
    return Codec(name)


def volume_bytes(shape: Sequence[int], dtype: str) -> int:
    """The bytes of an array."""
    return math.prod(shape) * np.dtype(dtype).itemsize


def slab_count(total: int) -> int:
    """The number of slabs of a volume of `total` bytes."""
    return -(-total // SLAB_BYTES)


def slab_range(total: int, index: int) -> range:
    """The bytes of slab `index` of a volume of `total` bytes.

    Raises:
        DiffusionSegmentError: PROTOCOL for a slab that the volume does not have.
    """
    if not 0 <= index < slab_count(total):
        raise DiffusionSegmentError(ErrorCode.PROTOCOL, f"The volume has no slab {index}.")
    return range(index * SLAB_BYTES, min((index + 1) * SLAB_BYTES, total))


def encode_slab(data: Bytes, itemsize: int, codec: Codec) -> Bytes:
    """Encode the bytes of a slab of values of `itemsize` bytes each."""
    if codec is Codec.RAW:
        return data
    planes = np.ascontiguousarray(np.frombuffer(data, np.uint8).reshape(-1, itemsize).T).data
    if codec is Codec.ZLIB:
        return zlib.compress(planes, _LEVEL)
    import zstandard

    return zstandard.ZstdCompressor(level=_LEVEL).compress(planes)


def decode_slab(encoded: Bytes, itemsize: int, codec: Codec, size: int) -> memoryview:
    """The `size` bytes of a slab.

    Raises:
        DiffusionSegmentError: PROTOCOL for damaged data, or another number of bytes than `size`.
    """
    payload = memoryview(encoded)
    if codec is Codec.RAW:
        return _of_size(payload, size)
    data = _from_zlib(payload, size) if codec is Codec.ZLIB else _from_zstd(payload, size)
    planes = np.frombuffer(_of_size(memoryview(data), size), np.uint8).reshape(itemsize, -1)
    values = np.empty((planes.shape[1], itemsize), np.uint8)
    for significance, plane in enumerate(planes):
        # Six times as fast as copying the transposed array for values of two bytes.
        values[:, significance] = plane
    return values.data.cast("B")


def _from_zlib(payload: memoryview, size: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(payload, size)
    except zlib.error as error:
        raise _damaged() from error
    if not inflater.eof and inflater.unconsumed_tail:
        raise _too_large()
    if not inflater.eof:
        raise _damaged()
    return data


def _from_zstd(payload: memoryview, size: int) -> bytes:
    import zstandard

    try:
        # A frame without a size, which this program never writes, is -1 and refused.
        if zstandard.frame_content_size(payload) != size:
            raise _too_large()
        return zstandard.ZstdDecompressor().decompress(payload, max_output_size=size)
    except zstandard.ZstdError as error:
        raise _damaged() from error


def _damaged() -> DiffusionSegmentError:
    return DiffusionSegmentError(ErrorCode.PROTOCOL, "A slab is damaged.")


def _too_large() -> DiffusionSegmentError:
    return DiffusionSegmentError(ErrorCode.PROTOCOL, "A slab is larger than its volume declares.")


def _of_size(data: memoryview, size: int) -> memoryview:
    if len(data) != size:
        raise DiffusionSegmentError(ErrorCode.PROTOCOL, f"A slab has {len(data)} bytes instead of {size}.")
    return data
