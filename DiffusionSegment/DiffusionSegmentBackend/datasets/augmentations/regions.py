"""Ellipsoids in a patch: signed distances and partial-volume coverage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...imaging.volume import Box
from .patch_batch import PatchBatch
from .random_numbers import normal
from .separable import interpolated

_CELL_MM = 3.0
_OUTSIDE_MM = -50.0
_EDGE_MM = 1.0
_MARGIN_MM = 4.0


@dataclass(frozen=True)
class Ball:
    """An ellipsoid: centre (z, y, x) in voxels, radius in mm, and relative `stretch` of each axis."""

    centre: tuple[float, float, float]
    radius_mm: float
    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def relative_to(self, box: Box) -> Ball:
        """The same ball in voxels of the patch cropped to `box`."""
        z, y, x = (position - extent.start for position, extent in zip(self.centre, box, strict=True))
        return replace(self, centre=(z, y, x))


def box_around(balls: Sequence[Ball], shape: Sequence[int], spacing_mm: Sequence[float]) -> Box:
    """The box (z, y, x) of a patch that contains the balls and their edges."""
    box = []
    for axis, (n, step) in enumerate(zip(shape, spacing_mm, strict=True)):
        ends = [(ball.centre[axis], (ball.radius_mm * ball.stretch[axis] + _MARGIN_MM) / step) for ball in balls]
        low = max(0, min(n - 1, int(min(centre - reach for centre, reach in ends))))
        box.append(slice(low, max(low + 1, min(n, int(max(centre + reach for centre, reach in ends)) + 2))))
    return box[0], box[1], box[2]


def signed_distance(balls: Sequence[Ball], batch: PatchBatch) -> Tensor:
    """Signed distance (1, 1, z, y, x) in mm to the border of the union of `balls`, positive inside, at least -50.

    Computed on cells of 3 mm, or of one voxel if that is larger, and interpolated.
    """
    strides = [max(1, round(_CELL_MM / step)) for step in batch.spacing_mm]
    cells = [-(-n // stride) for n, stride in zip(batch.shape, strides, strict=True)]
    coarse = torch.full(cells, _OUTSIDE_MM, device=batch.image.device)
    for ball in balls:
        _draw(coarse, ball, strides, batch.spacing_mm)
    return interpolated(coarse[None, None], batch.shape, strides)


def smooth_field(batch: PatchBatch, grain_mm: float, generator: torch.Generator) -> Tensor:
    """Standard normal noise on a lattice of `grain_mm`, linearly interpolated to (1, 1, z, y, x)."""
    strides = [max(1.0, grain_mm / step) for step in batch.spacing_mm]
    cells = [int(n / stride) + 2 for n, stride in zip(batch.shape, strides, strict=True)]
    lattice = normal((1, 1, *cells), generator=generator, device=batch.image.device)
    return interpolated(lattice, batch.shape, strides)


def coverage(depth_mm: Tensor) -> Tensor:
    """Share of a voxel that is inside, 0..1, from its signed distance; the edge is 2 mm wide."""
    return (0.5 + depth_mm / (2 * _EDGE_MM)).clamp(0, 1)


def _draw(coarse: Tensor, ball: Ball, strides: Sequence[int], spacing_mm: Sequence[float]) -> None:
    box, squares = [], torch.zeros((), device=coarse.device)
    reach = ball.radius_mm * max(ball.stretch) + 2 * _CELL_MM * max(1.0, max(spacing_mm) / _CELL_MM)
    for axis, (n, stride, step) in enumerate(zip(coarse.shape, strides, spacing_mm, strict=True)):
        cell = stride * step
        centre = (ball.centre[axis] - (stride - 1) / 2) / stride
        low = min(n, max(0, int(centre - reach / cell)))
        high = max(low, min(n, int(centre + reach / cell) + 2))
        box.append(slice(low, high))
        along = (torch.arange(low, high, device=coarse.device) - centre) * (cell / ball.stretch[axis])
        view = [1, 1, 1]
        view[axis] = -1
        squares = squares + along.view(view) ** 2
    part = coarse[tuple(box)]
    torch.maximum(part, ball.radius_mm - squares.sqrt(), out=part)
