"""Compressed arrays in memory; label maps become about a hundred times smaller."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The fastest level: label maps compress well with it.
_LEVEL = 1


@dataclass(frozen=True)
class PackedArray:
    """A zlib-compressed array of any shape and type."""

    shape: tuple[int, ...]
    dtype: str
    data: bytes

    def unpack(self) -> NDArray[Any]:
        """The array, read-only."""
        return np.frombuffer(zlib.decompress(self.data), self.dtype).reshape(self.shape)


def pack(array: NDArray[Any]) -> PackedArray:
    """Compress an array; the result does not refer to `array`."""
    return PackedArray(array.shape, array.dtype.str, zlib.compress(np.ascontiguousarray(array).data, _LEVEL))
