"""Compressed or not: whichever moves slabs faster over this network, measured while they move."""

from __future__ import annotations

import threading

from ..protocol.slabs import Codec

_WEIGHT = 0.5


class CodecChoice:
    """The rates of all codecs, in bytes of voxels per second from end to end; each is tried once."""

    def __init__(self) -> None:
        self._untried = list(reversed(Codec))
        self._rates: dict[Codec, float] = {}
        self._lock = threading.Lock()

    def next(self) -> Codec:
        """The codec of the next slab."""
        with self._lock:
            if self._untried:
                return self._untried.pop(0)
            return max(self._rates, key=self._rates.__getitem__, default=Codec.RAW)

    def moved(self, codec: Codec, size: int, seconds: float) -> None:
        """A slab of `size` bytes took so long, compression included."""
        rate = size / max(seconds, 1e-6)
        with self._lock:
            before = self._rates.get(codec, rate)
            self._rates[codec] = before + _WEIGHT * (rate - before)
