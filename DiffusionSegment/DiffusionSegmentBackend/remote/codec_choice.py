"""Compressed or not: whichever moves slabs faster over this network, measured while they move."""

from __future__ import annotations

import threading

from ..protocol.slabs import Codec

# Bytes per second of compressed data below which compression is worth it whatever it costs.
_SLOW_LINK = 20e6
_WEIGHT = 0.5


class CodecChoice:
    """The rates of both codecs; the first slab is compressed, on a fast network the second is not."""

    def __init__(self) -> None:
        self._rates: dict[Codec, float] = {}
        self._slow = False
        self._lock = threading.Lock()

    def next(self) -> Codec:
        """The codec of the next slab."""
        with self._lock:
            if Codec.PLANES not in self._rates or self._slow:
                return Codec.PLANES
            if Codec.RAW not in self._rates:
                return Codec.RAW
            return max(self._rates, key=self._rates.__getitem__)

    def moved(self, codec: Codec, *, size: int, encoded: int, seconds: float) -> None:
        """A slab of `size` bytes, `encoded` on the network, took so long from end to end."""
        rate = size / max(seconds, 1e-6)
        with self._lock:
            before = self._rates.get(codec, rate)
            self._rates[codec] = before + _WEIGHT * (rate - before)
            if codec is Codec.PLANES:
                self._slow = encoded / max(seconds, 1e-6) < _SLOW_LINK
