"""From the model's grid back to the scan's own voxels, slab by slab so that memory stays small."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..imaging.volume import Grid, linear_taps
from .memory import Allocate, in_memory

Box = tuple[slice, slice, slice]

_SLAB = 16
# Rounding must not cost a class its box.
_BARELY = 0.999


def restore_labels(
    probabilities: Tensor, offset: tuple[int, int, int], grid: Grid, room: Allocate = in_memory
) -> NDArray[np.uint8]:
    """Arg max of linearly interpolated probabilities (classes, z, y, x), from grid voxel `offset` on: (k, j, i).

    The winner of a voxel has at least an equal share, and so has a neighbour on the grid: each class is interpolated
    only in the box of voxels that can see such a neighbour.
    """
    labels = _scan_sized(grid, np.uint8, room)
    target = grid.order.apply(labels)
    could_win = [probabilities[0] < 1, *(p > _BARELY / len(probabilities) for p in probabilities[1:])]
    boxes = {c: native_box(voxels, offset, grid) for c, voxels in enumerate(could_win) if c and bool(voxels.any())}
    if not boxes:
        return labels
    box = _around(list(boxes.values()))
    for z in range(box[0].start, box[0].stop, _SLAB):
        slab = (slice(z, min(z + _SLAB, box[0].stop)), box[1], box[2])
        best = interpolated(probabilities[:1], offset, grid, slab)[0]
        winner = torch.zeros(best.shape, dtype=torch.uint8)
        for value, place in boxes.items():
            rows = slice(max(slab[0].start, place[0].start), min(slab[0].stop, place[0].stop))
            if rows.start >= rows.stop:
                continue
            part = (rows, place[1], place[2])
            share = interpolated(probabilities[value : value + 1], offset, grid, part)[0]
            own = tuple(slice(p.start - s.start, p.stop - s.start) for p, s in zip(part, slab, strict=True))
            winner[own].masked_fill_(share > best[own], value)
            torch.maximum(best[own], share, out=best[own])
        target[slab] = winner.numpy()
    return labels


def restore_map(
    values: NDArray[np.float32],
    offset: tuple[int, int, int],
    grid: Grid,
    *,
    outside: float | None = 0.0,
    room: Allocate = in_memory,
) -> NDArray[np.float32]:
    """Linear interpolation of (z, y, x) given from grid voxel `offset` on: float32 (k, j, i), `outside` elsewhere.

    `outside` None extends the values at the edge.
    """
    result = _scan_sized(grid, np.float32, room)
    if outside is not None:
        # The grid's next voxels beyond the map have that value too.
        before = [min(1, o) for o in offset]
        after = [min(1, n - o - side) for o, n, side in zip(offset, grid.shape, values.shape, strict=True)]
        values = np.pad(values, list(zip(before, after, strict=True)), constant_values=outside)
        offset = (offset[0] - before[0], offset[1] - before[1], offset[2] - before[2])
        if outside:
            result.fill(outside)
    target, source = grid.order.apply(result), torch.from_numpy(np.ascontiguousarray(values))[None]
    box = native_box(torch.ones(values.shape, dtype=torch.bool), offset, grid)
    box = box if outside is not None else _whole(grid)
    for z in range(box[0].start, box[0].stop, _SLAB):
        slab = (slice(z, min(z + _SLAB, box[0].stop)), box[1], box[2])
        target[slab] = interpolated(source, offset, grid, slab)[0].numpy()
    return result


def restore_nearest(
    places: NDArray[np.uint8], offset: tuple[int, int, int], grid: Grid, room: Allocate = in_memory
) -> NDArray[np.uint8]:
    """The nearest grid voxel's value of (z, y, x), given from grid voxel `offset` on: uint8 (k, j, i), 0 elsewhere."""
    result = _scan_sized(grid, np.uint8, room)
    if grid.native_to_grid is not None:
        _fill_nearest(grid.order.apply(result), places, offset, grid)
        return result
    indices, inside = [], []
    for axis in range(3):
        low, high, weight = linear_taps(
            0, grid.native_shape[axis], grid.native_spacing[2 - axis], grid.shape[axis], grid.spacing[2 - axis]
        )
        nearest = np.where(weight < 0.5, low, high) - offset[axis]
        known = np.flatnonzero((nearest >= 0) & (nearest < places.shape[axis]))
        indices.append(nearest[known])
        inside.append(known)
    if all(len(known) for known in inside):
        z, y, x = (slice(int(known[0]), int(known[-1]) + 1) for known in inside)
        grid.order.apply(result)[z, y, x] = places[np.ix_(*indices)]
    return result


def _fill_nearest(
    target: NDArray[np.uint8], places: NDArray[np.uint8], offset: tuple[int, int, int], grid: Grid
) -> None:
    """`restore_nearest` for a sheared scan, into its canonical voxels."""
    if not places.any():
        return
    box = native_box(torch.from_numpy(places > 0), offset, grid)
    for z in range(box[0].start, box[0].stop, _SLAB):
        slab = (slice(z, min(z + _SLAB, box[0].stop)), box[1], box[2])
        nearest = np.rint(_grid_positions(grid, slab)).astype(int) - offset
        inside = np.all((nearest >= 0) & (nearest < places.shape), axis=-1)
        found = places[tuple(np.where(inside[..., None], nearest, 0).reshape(-1, 3).T)].reshape(inside.shape)
        target[slab] = np.where(inside, found, 0)


def _grid_positions(grid: Grid, box: Box) -> NDArray[np.float64]:
    """Where the canonical native voxels of a box lie on the grid of a sheared scan: (z, y, x, 3), as z, y, x."""
    assert grid.native_to_grid is not None
    to_grid = grid.native_to_grid
    z, y, x = (np.arange(s.start, s.stop, dtype=np.float64) for s in box)
    axes = to_grid[2::-1, :3]
    return (
        z[:, None, None, None] * axes[:, 2]
        + y[None, :, None, None] * axes[:, 1]
        + x[None, None, :, None] * axes[:, 0]
        + to_grid[2::-1, 3]
    )


def _scan_sized(grid: Grid, dtype: type[np.generic], room: Allocate) -> NDArray:
    """Zeros of the scan's own shape (k, j, i)."""
    own = grid.order.undo(np.broadcast_to(np.uint8(0), grid.native_shape))
    return room(own.shape, dtype)


def _whole(grid: Grid) -> Box:
    z, y, x = grid.native_shape
    return slice(0, z), slice(0, y), slice(0, x)


def _around(boxes: Sequence[Box]) -> Box:
    z, y, x = (slice(min(b[a].start for b in boxes), max(b[a].stop for b in boxes)) for a in range(3))
    return z, y, x


def native_box(foreground: Tensor, offset: tuple[int, int, int], grid: Grid) -> Box:
    """Native canonical voxels that can see a foreground voxel of the grid."""
    if grid.native_to_grid is not None:
        return _sheared_box(foreground, offset, grid)
    box = []
    for axis in range(3):
        found = foreground.any(dim=[a for a in range(3) if a != axis]).nonzero().flatten() + offset[axis]
        ratio = grid.spacing[2 - axis] / grid.native_spacing[2 - axis]
        low = int(np.floor((int(found[0]) - 0.5) * ratio)) - 1
        high = int(np.ceil((int(found[-1]) + 1.5) * ratio)) + 1
        box.append(slice(max(0, low), min(grid.native_shape[axis], high)))
    return box[0], box[1], box[2]


def _sheared_box(foreground: Tensor, offset: tuple[int, int, int], grid: Grid) -> Box:
    assert grid.native_to_grid is not None
    ends = []
    for axis in (2, 1, 0):
        found = foreground.any(dim=[a for a in range(3) if a != axis]).nonzero().flatten() + offset[axis]
        # Values at the grid's own edge reach beyond it.
        low = -np.inf if int(found[0]) == 0 else int(found[0]) - 1.5
        high = np.inf if int(found[-1]) == grid.shape[axis] - 1 else int(found[-1]) + 1.5
        ends.append((max(low, -2.0), min(high, grid.shape[axis] + 1.0)))
    corners = np.array(np.meshgrid(*ends, indexing="ij")).reshape(3, -1)
    back = np.linalg.inv(grid.native_to_grid)
    native = back[:3, :3] @ corners + back[:3, 3:]
    sides = []
    for axis, size in enumerate(grid.native_shape):
        low, high = np.floor(native[2 - axis].min()), np.ceil(native[2 - axis].max()) + 1
        start = int(np.clip(low, 0, size))
        sides.append(slice(start, int(np.clip(high, start, size))))
    return sides[0], sides[1], sides[2]


def in_native_box(box: Box, grid: Grid) -> Box:
    """A box of canonical voxels (z, y, x) as the scan's own (k, j, i)."""
    own = [slice(0)] * 3
    for axis, place in enumerate(box):
        world = 2 - axis
        n = grid.native_shape[axis]
        turned = slice(n - place.stop, n - place.start) if grid.order.flips[world] else place
        own[2 - grid.order.axes[world]] = turned
    return own[0], own[1], own[2]


def interpolated(probabilities: Tensor, offset: tuple[int, int, int], grid: Grid, box: Box) -> Tensor:
    """Linear interpolation of (c, z, y, x), given from grid voxel `offset` on, at canonical native voxels of a box."""
    if grid.native_to_grid is not None:
        return _interpolated_sheared(probabilities, offset, grid, box)
    result = probabilities
    for axis, place in enumerate(box):
        low, high, weight = linear_taps(
            place.start, place.stop, grid.native_spacing[2 - axis], grid.shape[axis], grid.spacing[2 - axis]
        )
        last = probabilities.shape[axis + 1] - 1
        below = result.index_select(axis + 1, torch.from_numpy(np.clip(low - offset[axis], 0, last))).float()
        above = result.index_select(axis + 1, torch.from_numpy(np.clip(high - offset[axis], 0, last))).float()
        shape = [-1 if a == axis + 1 else 1 for a in range(4)]
        result = below.lerp(above, torch.from_numpy(weight).reshape(shape))
    return result


def _interpolated_sheared(probabilities: Tensor, offset: tuple[int, int, int], grid: Grid, box: Box) -> Tensor:
    """`interpolated` for a sheared scan; as there, values at the edge reach beyond it."""
    positions = _grid_positions(grid, box) - offset
    size = np.array(probabilities.shape[1:])
    if positions.size == 0:
        return torch.zeros((len(probabilities), *positions.shape[:3]))
    low = np.clip(np.floor(positions.min(axis=(0, 1, 2))), 0, size - 1).astype(int)
    high = np.clip(np.ceil(positions.max(axis=(0, 1, 2))), low, size - 1).astype(int) + 1
    part = probabilities[:, low[0] : high[0], low[1] : high[1], low[2] : high[2]].float()
    # grid_sample counts -1 to 1 from the first voxel's centre to the last one's, as x, y, z.
    scaled = 2 * (positions - low) / np.maximum(high - low - 1, 1) - 1
    points = torch.from_numpy(scaled[..., ::-1].astype(np.float32))[None]
    sampled = torch.nn.functional.grid_sample(part[None], points, padding_mode="border", align_corners=True)
    return sampled[0]
