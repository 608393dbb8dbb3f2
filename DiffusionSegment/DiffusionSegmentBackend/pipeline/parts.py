"""A long body in parts along its axis, where memory is short; every part says what the whole would say there."""

from __future__ import annotations

from dataclasses import dataclass

from .tiling import TILE_OVERLAP, TILE_SIDE

_INTERVAL = int(TILE_SIDE * (1 - TILE_OVERLAP))


@dataclass(frozen=True)
class Part:
    """Slices `core` of the volume of tiles, answered by a run that sees the slices `seen`."""

    core: slice
    seen: slice


def parts_of(depth: int, most: int | None) -> list[Part]:
    """The parts of `depth` slices; none but the last, by less than a tile, sees more than `most`, at least 112.

    Cores end where a row of tiles begins, and a part sees every row that reaches into its core. So its tiles lie where
    those of the whole lie, and blend to the same values.
    """
    if most is None or depth <= most:
        return [Part(slice(0, depth), slice(0, depth))]
    core = max(1, (most - TILE_SIDE) // _INTERVAL) * _INTERVAL
    parts: list[Part] = []
    start = 0
    while start < depth:
        last = start + core > depth - TILE_SIDE
        stop = depth if last else start + core
        seen = slice(max(0, start - _INTERVAL), depth if last else stop - _INTERVAL + TILE_SIDE)
        parts.append(Part(slice(start, stop), seen))
        start = stop
    return parts
