"""Resampling of maps from the model's grid to the scan's voxels, slab by slab to limit memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..imaging.volume import Box, Grid, Volume, linear_taps
from .memory import Allocate, in_memory

_SLAB = 16
# Tolerance of the bound 1 / classes below which a class cannot be the arg max.
_BOUND_TOLERANCE = 0.999


def restore_labels(
    probabilities: Tensor, offset: tuple[int, int, int], grid: Grid, allocate: Allocate = in_memory
) -> NDArray[np.uint8]:
    """Arg max (k, j, i) of the linearly interpolated probabilities (classes, z, y, x), which begin at voxel `offset`.

    The probability of the arg max is at least 1 / classes, and so it is at one of the neighbours on the grid: each
    class is interpolated only in the bounding box of the voxels with such a neighbour.
    """
    labels = _scan_sized(grid, np.uint8, allocate)
    target = grid.order.apply(labels)
    candidates = [probabilities[0] < 1, *(p > _BOUND_TOLERANCE / len(probabilities) for p in probabilities[1:])]
    boxes = {c: native_box(voxels, offset, grid) for c, voxels in enumerate(candidates) if c and bool(voxels.any())}
    if not boxes:
        return labels
    box = _bounding_box(list(boxes.values()))
    for z in range(box[0].start, box[0].stop, _SLAB):
        slab = (slice(z, min(z + _SLAB, box[0].stop)), box[1], box[2])
        best = interpolated(probabilities[:1], offset, grid, slab)[0]
        arg_max = torch.zeros(best.shape, dtype=torch.uint8)
        for value, class_box in boxes.items():
            rows = slice(max(slab[0].start, class_box[0].start), min(slab[0].stop, class_box[0].stop))
            if rows.start >= rows.stop:
                continue
            part = (rows, class_box[1], class_box[2])
            probability = interpolated(probabilities[value : value + 1], offset, grid, part)[0]
            in_slab = tuple(slice(p.start - s.start, p.stop - s.start) for p, s in zip(part, slab, strict=True))
            arg_max[in_slab].masked_fill_(probability > best[in_slab], value)
            torch.maximum(best[in_slab], probability, out=best[in_slab])
        target[slab] = arg_max.numpy()
    return labels


def restore_map(
    values: NDArray[np.float32],
    offset: tuple[int, int, int],
    grid: Grid,
    *,
    outside: float | None = 0.0,
    allocate: Allocate = in_memory,
) -> NDArray[np.float32]:
    """Linear interpolation (k, j, i), float32, of a map (z, y, x) that begins at grid voxel `offset`.

    Elsewhere the result is `outside`; None extends the values at the edge of the map.
    """
    result = _scan_sized(grid, np.float32, allocate)
    if outside is not None:
        values, offset = _with_rim(values, offset, grid, outside)
        if outside:
            result.fill(outside)
    target, source = grid.order.apply(result), torch.from_numpy(np.ascontiguousarray(values))[None]
    box = native_box(torch.ones(values.shape, dtype=torch.bool), offset, grid)
    box = box if outside is not None else _whole(grid)
    for z in range(box[0].start, box[0].stop, _SLAB):
        slab = (slice(z, min(z + _SLAB, box[0].stop)), box[1], box[2])
        target[slab] = interpolated(source, offset, grid, slab)[0].numpy()
    return result


def map_on_grid(
    values: NDArray[np.float32], offset: tuple[int, int, int], grid: Grid, *, outside: float = 0.0
) -> Volume:
    """A map (z, y, x) that begins at grid voxel `offset`, float32 in the geometry of its box of the grid.

    Interpolated linearly at the scan's voxels it is `restore_map`: it has the same rim of `outside`. Where the box ends
    with the grid there is no rim, and values at the edge extend half a voxel, to the edge of the grid.
    """
    rimmed, start = _with_rim(values, offset, grid, outside)
    matrix = grid.index_to_lps.copy()
    matrix[:3, 3] = grid.lps(np.array(start))
    return Volume(np.ascontiguousarray(rimmed, dtype=np.float32), matrix)


def _with_rim(
    values: NDArray[np.float32], offset: tuple[int, int, int], grid: Grid, outside: float
) -> tuple[NDArray[np.float32], tuple[int, int, int]]:
    """A map with a rim of `outside` where the grid continues, so that it falls off to it within a voxel; its offset."""
    before = [min(1, o) for o in offset]
    after = [min(1, n - o - side) for o, n, side in zip(offset, grid.shape, values.shape, strict=True)]
    rimmed = np.pad(values, list(zip(before, after, strict=True)), constant_values=outside)
    return rimmed, (offset[0] - before[0], offset[1] - before[1], offset[2] - before[2])


def restore_nearest(
    values: NDArray[np.uint8], offset: tuple[int, int, int], grid: Grid, allocate: Allocate = in_memory
) -> NDArray[np.uint8]:
    """Nearest-neighbour interpolation (k, j, i), uint8, of a map (z, y, x) that begins at grid voxel `offset`.

    The result is 0 outside the map.
    """
    result = _scan_sized(grid, np.uint8, allocate)
    if grid.native_to_grid is not None:
        _fill_nearest(grid.order.apply(result), values, offset, grid)
        return result
    indices, inside = [], []
    for axis in range(3):
        low, high, weight = linear_taps(
            0, grid.native_shape[axis], grid.native_spacing[2 - axis], grid.shape[axis], grid.spacing[2 - axis]
        )
        nearest = np.where(weight < 0.5, low, high) - offset[axis]
        planes = np.flatnonzero((nearest >= 0) & (nearest < values.shape[axis]))
        indices.append(nearest[planes])
        inside.append(planes)
    if all(len(planes) for planes in inside):
        z, y, x = (slice(int(planes[0]), int(planes[-1]) + 1) for planes in inside)
        grid.order.apply(result)[z, y, x] = values[np.ix_(*indices)]
    return result


def _fill_nearest(
    target: NDArray[np.uint8], values: NDArray[np.uint8], offset: tuple[int, int, int], grid: Grid
) -> None:
    """`restore_nearest` for a sheared scan, into its canonical voxels."""
    if not values.any():
        return
    box = native_box(torch.from_numpy(values > 0), offset, grid)
    for z in range(box[0].start, box[0].stop, _SLAB):
        slab = (slice(z, min(z + _SLAB, box[0].stop)), box[1], box[2])
        nearest = np.rint(_grid_positions(grid, slab)).astype(int) - offset
        inside = np.all((nearest >= 0) & (nearest < values.shape), axis=-1)
        read = values[tuple(np.where(inside[..., None], nearest, 0).reshape(-1, 3).T)].reshape(inside.shape)
        target[slab] = np.where(inside, read, 0)


def _grid_positions(grid: Grid, box: Box) -> NDArray[np.float64]:
    """Grid indices (z, y, x, 3), as z, y, x, of the canonical native voxels of a box of a sheared scan."""
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


def _scan_sized(grid: Grid, dtype: type[np.generic], allocate: Allocate) -> NDArray[Any]:
    """Zeros of the scan's own shape (k, j, i)."""
    own = grid.order.undo(np.broadcast_to(np.uint8(0), grid.native_shape))
    return allocate(own.shape, dtype)


def _whole(grid: Grid) -> Box:
    z, y, x = grid.native_shape
    return slice(0, z), slice(0, y), slice(0, x)


def _bounding_box(boxes: Sequence[Box]) -> Box:
    z, y, x = (slice(min(b[a].start for b in boxes), max(b[a].stop for b in boxes)) for a in range(3))
    return z, y, x


def native_box(foreground: Tensor, offset: tuple[int, int, int], grid: Grid) -> Box:
    """Box of the canonical native voxels whose interpolation depends on a foreground voxel of the grid."""
    if grid.native_to_grid is not None:
        return _sheared_box(foreground, offset, grid)
    box = []
    for axis in range(3):
        planes = foreground.any(dim=[a for a in range(3) if a != axis]).nonzero().flatten() + offset[axis]
        ratio = grid.spacing[2 - axis] / grid.native_spacing[2 - axis]
        low = int(np.floor((int(planes[0]) - 0.5) * ratio)) - 1
        high = int(np.ceil((int(planes[-1]) + 1.5) * ratio)) + 1
        box.append(slice(max(0, low), min(grid.native_shape[axis], high)))
    return box[0], box[1], box[2]


def _sheared_box(foreground: Tensor, offset: tuple[int, int, int], grid: Grid) -> Box:
    assert grid.native_to_grid is not None
    ends = []
    for axis in (2, 1, 0):
        planes = foreground.any(dim=[a for a in range(3) if a != axis]).nonzero().flatten() + offset[axis]
        # Values at the edge of the grid are extended beyond it.
        low = -np.inf if int(planes[0]) == 0 else int(planes[0]) - 1.5
        high = np.inf if int(planes[-1]) == grid.shape[axis] - 1 else int(planes[-1]) + 1.5
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
    for axis, side in enumerate(box):
        world = 2 - axis
        n = grid.native_shape[axis]
        flipped = slice(n - side.stop, n - side.start) if grid.order.flips[world] else side
        own[2 - grid.order.axes[world]] = flipped
    return own[0], own[1], own[2]


def interpolated(probabilities: Tensor, offset: tuple[int, int, int], grid: Grid, box: Box) -> Tensor:
    """Linear interpolation of maps (c, z, y, x), which begin at grid voxel `offset`, at the native voxels of a box."""
    if grid.native_to_grid is not None:
        return _interpolated_sheared(probabilities, offset, grid, box)
    result = probabilities
    for axis, side in enumerate(box):
        low, high, weight = linear_taps(
            side.start, side.stop, grid.native_spacing[2 - axis], grid.shape[axis], grid.spacing[2 - axis]
        )
        last = probabilities.shape[axis + 1] - 1
        below = result.index_select(axis + 1, torch.from_numpy(np.clip(low - offset[axis], 0, last))).float()
        above = result.index_select(axis + 1, torch.from_numpy(np.clip(high - offset[axis], 0, last))).float()
        shape = [-1 if a == axis + 1 else 1 for a in range(4)]
        result = below.lerp(above, torch.from_numpy(weight).reshape(shape))
    return result


def _interpolated_sheared(probabilities: Tensor, offset: tuple[int, int, int], grid: Grid, box: Box) -> Tensor:
    """`interpolated` for a sheared scan; as there, values at the edge are extended beyond it."""
    positions = _grid_positions(grid, box) - offset
    size = np.array(probabilities.shape[1:])
    if positions.size == 0:
        return torch.zeros((len(probabilities), *positions.shape[:3]))
    low = np.clip(np.floor(positions.min(axis=(0, 1, 2))), 0, size - 1).astype(int)
    high = np.clip(np.ceil(positions.max(axis=(0, 1, 2))), low, size - 1).astype(int) + 1
    part = probabilities[:, low[0] : high[0], low[1] : high[1], low[2] : high[2]].float()
    # Coordinates of grid_sample are x, y, z, and -1 to 1 from the centre of the first voxel to that of the last.
    scaled = 2 * (positions - low) / np.maximum(high - low - 1, 1) - 1
    points = torch.from_numpy(scaled[..., ::-1].astype(np.float32))[None]
    sampled = torch.nn.functional.grid_sample(part[None], points, padding_mode="border", align_corners=True)
    return sampled[0]
