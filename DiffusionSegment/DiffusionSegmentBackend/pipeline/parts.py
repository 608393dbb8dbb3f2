"""A long body in parts along its axis, where memory is short; every part says what the whole would say there."""

from __future__ import annotations

from dataclasses import dataclass

from ..models.tile_shape import TileShape
from .tiling import interval_of


@dataclass(frozen=True)
class Part:
    """Slices `core` of the volume of tiles, answered by a run that sees the slices `seen`."""

    core: slice
    seen: slice


def parts_of(depth: int, most: int | None, tile: TileShape) -> list[Part]:
    """The parts of `depth` slices; none but the last, by less than a tile, sees more than `most`, at least two tiles.

    Cores end where a row of tiles begins, and a part sees every row that reaches into its core. So its tiles lie where
    those of the whole lie, and blend to the same values.
    """
    if most is None or depth <= most:
        return [Part(slice(0, depth), slice(0, depth))]
    tile_depth = tile.voxels[0]
    interval = interval_of(tile_depth, tile.stride[0])
    core = max(1, (most - tile_depth) // interval) * interval
    parts: list[Part] = []
    start = 0
    while start < depth:
        last = start + core > depth - tile_depth
        stop = depth if last else start + core
        seen = slice(max(0, start - interval), depth if last else stop - interval + tile_depth)
        parts.append(Part(slice(start, stop), seen))
        start = stop
    return parts
