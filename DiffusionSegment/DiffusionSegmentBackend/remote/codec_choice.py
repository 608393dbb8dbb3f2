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

    The first slabs are sent as they are. Only over a slow network the other codecs are tried, each once, and then the
    fastest is used.
    """

    def __init__(self, codecs: Sequence[Codec]) -> None:
        self._untried = [codec for codec in codecs if codec is not Codec.RAW]
        self._rates: dict[Codec, float] = {}
        self._lock = threading.Lock()

    def next(self) -> Codec:
        """The codec of the next slab."""
        with self._lock:
            if self._untried and self._rates.get(Codec.RAW, _FAST_NETWORK) < _FAST_NETWORK:
                return self._untried.pop(0)
            return max(self._rates, key=self._rates.__getitem__, default=Codec.RAW)

    def moved(self, codec: Codec, size: int, seconds: float) -> None:
        """A slab of `size` bytes took so long, compression included."""
        rate = size / max(seconds, 1e-6)
        with self._lock:
            before = self._rates.get(codec, rate)
            self._rates[codec] = before + _WEIGHT * (rate - before)
