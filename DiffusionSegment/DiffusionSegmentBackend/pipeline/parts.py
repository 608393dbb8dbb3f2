"""Split of a deep volume into parts along the body axis, each of which gives the same result as the whole volume."""

from __future__ import annotations

from dataclasses import dataclass

from ..models.tile_shape import TileShape
from .tiling import interval_of


@dataclass(frozen=True)
class Part:
    """Slices `core` of the tiled volume, computed from the slices `input`, which include the context of the core."""

    core: slice
    input: slice


def parts_of(depth: int, max_slices: int | None, tile: TileShape) -> list[Part]:
    """Split `depth` slices into parts of at most `max_slices` input slices, but at least two tiles.

    The last part may be larger by less than a tile. Cores end where a row of tiles begins, and the input of a part
    holds every row of tiles that overlaps its core: tiles have the positions that they have in the whole volume, and
    blend to the same values.
    """
    if max_slices is None or depth <= max_slices:
        return [Part(slice(0, depth), slice(0, depth))]
    tile_depth = tile.voxels[0]
    interval = interval_of(tile_depth, tile.stride[0])
    core = max(1, (max_slices - tile_depth) // interval) * interval
    parts: list[Part] = []
    start = 0
    while start < depth:
        last = start + core > depth - tile_depth
        stop = depth if last else start + core
        context = slice(max(0, start - interval), depth if last else stop - interval + tile_depth)
        parts.append(Part(slice(start, stop), context))
        start = stop
    return parts
