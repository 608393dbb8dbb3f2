"""From the model's grid back to the scan's own voxels, slab by slab so that memory stays small."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..volume import Grid, linear_taps

_SLAB = 16


def restore_labels(probabilities: Tensor, offset: tuple[int, int, int], grid: Grid) -> NDArray[np.uint8]:
    """Arg max of linearly interpolated probabilities (classes, z, y, x), from grid voxel `offset` on: (k, j, i)."""
    labels = np.zeros(grid.native_shape, dtype=np.uint8)
    foreground = 1 - probabilities[0] > 0.1
    if not foreground.any():
        return np.ascontiguousarray(grid.order.undo(labels))
    box = native_box(foreground, offset, grid)
    for z in range(box[0].start, box[0].stop, _SLAB):
        slab = (slice(z, min(z + _SLAB, box[0].stop)), box[1], box[2])
        labels[slab] = interpolated(probabilities, offset, grid, slab).argmax(dim=0).byte().numpy()
    return np.ascontiguousarray(grid.order.undo(labels))


def restore_map(
    values: NDArray[np.float32], offset: tuple[int, int, int], grid: Grid, *, outside: float | None = 0.0
) -> NDArray[np.float32]:
    """Linear interpolation of (z, y, x) given from grid voxel `offset` on: float32 (k, j, i), `outside` elsewhere.

    `outside` None extends the values at the edge.
    """
    whole = np.full(grid.shape, 0.0 if outside is None else outside, dtype=np.float32)
    whole[tuple(slice(o, o + n) for o, n in zip(offset, values.shape, strict=True))] = values
    slabs = [
        grid.native_slab(whole[None], (z, min(z + _SLAB, grid.native_shape[0])))[0]
        for z in range(0, grid.native_shape[0], _SLAB)
    ]
    return np.ascontiguousarray(grid.order.undo(np.concatenate(slabs)))


def restore_nearest(places: NDArray[np.uint8], offset: tuple[int, int, int], grid: Grid) -> NDArray[np.uint8]:
    """The nearest grid voxel's value of (z, y, x), given from grid voxel `offset` on: uint8 (k, j, i), 0 elsewhere."""
    result = np.zeros(grid.native_shape, dtype=np.uint8)
    indices, inside = [], []
    for axis in range(3):
        low, high, weight = linear_taps(
            0, grid.native_shape[axis], grid.native_spacing[2 - axis], grid.shape[axis], grid.spacing[2 - axis]
        )
        nearest = np.where(weight < 0.5, low, high) - offset[axis]
        known = np.flatnonzero((nearest >= 0) & (nearest < places.shape[axis]))
        indices.append(nearest[known])
        inside.append(known)
    result[np.ix_(*inside)] = places[np.ix_(*indices)]
    return np.ascontiguousarray(grid.order.undo(result))


def native_box(foreground: Tensor, offset: tuple[int, int, int], grid: Grid) -> tuple[slice, slice, slice]:
    """Native canonical voxels that can see a foreground voxel of the grid."""
    box = []
    for axis in range(3):
        found = foreground.any(dim=[a for a in range(3) if a != axis]).nonzero().flatten() + offset[axis]
        ratio = grid.spacing[2 - axis] / grid.native_spacing[2 - axis]
        low = int(np.floor((int(found[0]) - 0.5) * ratio)) - 1
        high = int(np.ceil((int(found[-1]) + 1.5) * ratio)) + 1
        box.append(slice(max(0, low), min(grid.native_shape[axis], high)))
    return box[0], box[1], box[2]


def in_native_box(box: tuple[slice, slice, slice], grid: Grid) -> tuple[slice, slice, slice]:
    """A box of canonical voxels (z, y, x) as the scan's own (k, j, i)."""
    own = [slice(0)] * 3
    for axis, place in enumerate(box):
        world = 2 - axis
        n = grid.native_shape[axis]
        turned = slice(n - place.stop, n - place.start) if grid.order.flips[world] else place
        own[2 - grid.order.axes[world]] = turned
    return own[0], own[1], own[2]


def interpolated(
    probabilities: Tensor, offset: tuple[int, int, int], grid: Grid, box: tuple[slice, slice, slice]
) -> Tensor:
    """Linear interpolation of (c, z, y, x), given from grid voxel `offset` on, at canonical native voxels of a box."""
    result = probabilities
    for axis, place in enumerate(box):
        low, high, weight = linear_taps(
            place.start, place.stop, grid.native_spacing[2 - axis], grid.shape[axis], grid.spacing[2 - axis]
        )
        last = probabilities.shape[axis + 1] - 1
        below = result.index_select(axis + 1, torch.from_numpy(np.clip(low - offset[axis], 0, last)))
        above = result.index_select(axis + 1, torch.from_numpy(np.clip(high - offset[axis], 0, last)))
        shape = [-1 if a == axis + 1 else 1 for a in range(4)]
        result = below.lerp(above, torch.from_numpy(weight).reshape(shape))
    return result
