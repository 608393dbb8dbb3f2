"""Compressed or not: whichever moves slabs faster over this network, measured while they move."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ..protocol.slabs import Codec

_WEIGHT = 0.5
# Bytes per second of one connection, about those of a network of 1 Gbit/s, from which on compression gains little.
_FAST_NETWORK = 125e6


class CodecChoice:
    """The rates of codecs, in bytes of voxels per second from end to end.

    Slabs are first sent as they are; but values of one byte are label maps, on which zstd gains over any network. While
    none of the codecs that were used is as fast as a fast network, the others are tried, each once; then the fastest is
    used.
    """

    def __init__(self, codecs: Sequence[Codec], *, itemsize: int) -> None:
        self._first = Codec.ZSTD if itemsize == 1 and Codec.ZSTD in codecs else Codec.RAW
        self._untried = [codec for codec in codecs if codec is not self._first]
        self._rates: dict[Codec, float] = {}
        self._lock = threading.Lock()

    def next(self) -> Codec:
        """The codec of the next slab."""
        with self._lock:
            if not self._rates:
                return self._first
            fastest = max(self._rates, key=self._rates.__getitem__)
            if self._untried and self._rates[fastest] < _FAST_NETWORK:
                return self._untried.pop(0)
            return fastest

    def moved(self, codec: Codec, size: int, seconds: float) -> None:
        """A slab of `size` bytes took so long, compression included."""
        rate = size / max(seconds, 1e-6)
        with self._lock:
            before = self._rates.get(codec, rate)
            self._rates[codec] = before + _WEIGHT * (rate - before)
