"""Geometry of volumes: an array, a 4x4 matrix to LPS mm, and the resampling to the model's grid.

Arrays are numpy's (k, j, i) or (k, j, i, components); matrices map (i, j, k, 1) to LPS millimetres. The model's grid
has the volume's own axes, permuted and flipped to the nearest of left, posterior, superior, so that resampling is a
scaling of each axis: in = (out + 0.5) * spacing_out / spacing_in - 0.5, with voxel edges aligned. For a sheared scan
(gantry tilt) the grid has the patient's axes, so that the anatomy is not sheared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from ..errors import DiffusionSegmentError, ErrorCode
from .sheared_grid import is_sheared, nearest_straight, sampled_straight, straight_box

_SAME_POSITION_MM = 0.01
_SLAB = 16
# Larger values are damage: float32, as in NIfTI, could not distinguish neighbouring voxels.
_MAX_SPACING_MM = 1000.0
_MAX_OFFSET_MM = 1e6
_MAX_GRID_VOXELS = 2**29
# Coverages that differ by less are equal up to rounding.
_COVERAGE_ROUNDING = 1e-5
_MIN_AXIS_ANGLE_VOLUME = 0.3  # |det| of the unit axes; a gantry tilt of 30 degrees still has 0.87

# Slices along (k, j, i), or (z, y, x) of a grid.
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Volume:
    """A scan or map: `array` (k, j, i[, c]) and `index_to_lps`, the 4x4 matrix from (i, j, k, 1) to LPS mm.

    `notes` are sentences for the user on how it was read.
    """

    array: NDArray[Any]
    index_to_lps: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Distance between voxel centres along i, j, k in mm."""
        spacing: NDArray[np.float64] = np.linalg.norm(self.index_to_lps[:3, :3], axis=0)
        return spacing

    @property
    def shape_ijk(self) -> tuple[int, int, int]:
        """Number of voxels along i, j, k."""
        k, j, i = self.array.shape[:3]
        return int(i), int(j), int(k)

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres."""
        return float(abs(np.linalg.det(self.index_to_lps[:3, :3]))) / 1000.0


def same_geometry(first: Volume, second: Volume) -> bool:
    """Whether two volumes have the same shape and the same matrix, to a hundredth of a mm."""
    return first.array.shape == second.array.shape and np.allclose(
        first.index_to_lps, second.index_to_lps, atol=_SAME_POSITION_MM
    )


def check_geometry(index_to_lps: NDArray[np.float64], *, what: str = "the scan") -> None:
    """Refuse an invalid matrix; `what` names its volume.

    Raises:
        DiffusionSegmentError: GEOMETRY for non-finite entries, zero or absurd spacing, or a singular direction.
    """
    hint = "Export the scan again, or repair its header."
    if not np.all(np.isfinite(index_to_lps)):
        raise DiffusionSegmentError(ErrorCode.GEOMETRY, f"The geometry of {what} contains NaN or infinity.", hint=hint)
    spacing = np.linalg.norm(index_to_lps[:3, :3], axis=0)
    if np.any(spacing < 1e-6):
        raise DiffusionSegmentError(ErrorCode.GEOMETRY, f"The voxel spacing of {what} is zero.", hint=hint)
    if np.any(spacing > _MAX_SPACING_MM) or np.any(np.abs(index_to_lps[:3, 3]) > _MAX_OFFSET_MM):
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY, f"The voxels of {what} are larger than a metre, or a kilometre away.", hint=hint
        )
    if abs(np.linalg.det(index_to_lps[:3, :3] / spacing)) < _MIN_AXIS_ANGLE_VOLUME:
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY, f"The direction matrix of {what} is singular: its axes do not span space.", hint=hint
        )


def check_values(array: NDArray[Any], *, what: str = "The scan") -> None:
    """Refuse NaN and infinity; `what` names the array.

    Raises:
        DiffusionSegmentError: INPUT_VALUES.
    """
    if np.issubdtype(array.dtype, np.floating) and not np.all(np.isfinite(array)):
        count = int(array.size - np.count_nonzero(np.isfinite(array)))
        raise DiffusionSegmentError(
            ErrorCode.INPUT_VALUES,
            f"{what} holds {count} voxels that are NaN or infinite.",
            hint="Replace them by the value of air, and run again.",
        )


@dataclass(frozen=True)
class AxisOrder:
    """Permutation to left, posterior, superior: world axis a is `axes[a]` of the volume, flipped where `flips[a]`."""

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """View of (k, j, i[, c]) as canonical (z, y, x[, c])."""
        order = [2 - self.axes[2 - a] for a in range(3)] + list(range(3, array.ndim))
        return array.transpose(order)[tuple(slice(None, None, -1 if self.flips[2 - a] else 1) for a in range(3))]

    def undo(self, array: NDArray[Any]) -> NDArray[Any]:
        """View of canonical (z, y, x[, c]) as the volume's own (k, j, i[, c])."""
        array = array[tuple(slice(None, None, -1 if self.flips[2 - a] else 1) for a in range(3))]
        order = [2 - self.axes[2 - a] for a in range(3)]
        inverse = [order.index(a) for a in range(3)] + list(range(3, array.ndim))
        return array.transpose(inverse)


def canonical_axes(index_to_lps: NDArray[np.float64]) -> AxisOrder:
    """The permutation and flips that bring each voxel axis nearest to its world axis (all 48 orientations)."""
    directions = index_to_lps[:3, :3] / np.linalg.norm(index_to_lps[:3, :3], axis=0)
    best = max(permutations(range(3)), key=lambda p: sum(abs(directions[a, p[a]]) for a in range(3)))
    flips = tuple(bool(directions[a, best[a]] < 0) for a in range(3))
    return AxisOrder(axes=(best[0], best[1], best[2]), flips=(flips[0], flips[1], flips[2]))


def canonical(volume: Volume) -> tuple[Volume, AxisOrder]:
    """The volume with axes nearest to left, posterior, superior; no voxel moves in space."""
    order = canonical_axes(volume.index_to_lps)
    matrix = volume.index_to_lps.copy()
    shape = volume.shape_ijk
    for a in range(3):
        column = volume.index_to_lps[:3, order.axes[a]]
        matrix[:3, a] = -column if order.flips[a] else column
        if order.flips[a]:
            matrix[:3, 3] += column * (shape[order.axes[a]] - 1)
    return Volume(order.apply(volume.array), matrix), order


@dataclass(frozen=True)
class Grid:
    """The model's grid over a scan.

    `native_shape` and `shape` are canonical (z, y, x); spacings in mm along x, y, z; `index_to_lps` is the grid's.
    `native_to_grid` maps the canonical voxels (x, y, z, 1) of a sheared scan to the grid's; None for any other scan,
    whose axes are those of the grid.
    """

    order: AxisOrder
    native_shape: tuple[int, int, int]
    native_spacing: tuple[float, float, float]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    index_to_lps: NDArray[np.float64]
    native_to_grid: NDArray[np.float64] | None = None

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres."""
        return float(np.prod(self.spacing)) / 1000.0

    def lps(self, zyx: NDArray[Any]) -> NDArray[np.float64]:
        """LPS mm of grid indices (..., 3) given as z, y, x."""
        xyz = np.asarray(zyx, dtype=np.float64)[..., ::-1]
        return xyz @ self.index_to_lps[:3, :3].T + self.index_to_lps[:3, 3]

    def cells_of(self, voxels: NDArray[Any]) -> NDArray[np.intp]:
        """The grid voxels (n, 3) that contain canonical native voxels (n, 3), both as z, y, x."""
        if self.native_to_grid is not None:
            matrix = self.native_to_grid[:3]
            cells: NDArray[np.float64] = np.rint(voxels[:, ::-1] @ matrix[:, :3].T + matrix[:, 3])
            return cells.astype(int)[:, ::-1]
        ratio = np.array(self.native_spacing[::-1]) / np.array(self.spacing[::-1])
        return np.asarray((voxels + 0.5) * ratio).astype(int)

    def to_grid(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """Resample an array of the scan's own (k, j, i) geometry to the grid, averaging where its voxels are larger.

        Outside a sheared scan the result is the scan's lowest value.
        """
        if self.native_to_grid is not None:
            fine = self._half_grid()
            to_fine = np.linalg.inv(fine.index_to_lps) @ self.index_to_lps
            return sampled_straight(fine.to_grid(array), to_fine, self.shape)
        turned = self.order.apply(array)
        along_z, along_y, along_x = (
            antialiased_weights(
                self.native_shape[axis], self.native_spacing[2 - axis], self.shape[axis], self.spacing[2 - axis]
            )
            for axis in range(3)
        )
        # Slab by slab, so that the whole scan is never in memory as float32.
        flat = np.empty((self.native_shape[0], self.shape[1], self.shape[2]), dtype=np.float32)
        for z in range(0, self.native_shape[0], _SLAB):
            slab = np.asarray(turned[z : z + _SLAB], dtype=np.float32)
            flat[z : z + _SLAB] = along_y @ (slab @ along_x.T)
        return np.ascontiguousarray((along_z @ flat.reshape(len(flat), -1)).reshape(self.shape), dtype=np.float32)

    def _half_grid(self) -> Grid:
        """A grid along the scan's own axes with half the spacing, an intermediate step for sheared scans."""
        assert self.native_to_grid is not None
        sx, sy, sz = (max(own, 0.5 * s) for own, s in zip(self.native_spacing, self.spacing, strict=True))
        spacing = (sx, sy, sz)
        native_to_lps = self.index_to_lps @ self.native_to_grid
        counts, matrix = _along_own_axes(native_to_lps, np.array(self.native_shape[::-1]), np.array(spacing))
        x, y, z = (int(n) for n in counts)
        return Grid(self.order, self.native_shape, self.native_spacing, (z, y, x), spacing, matrix)

    def labels_to_grid(self, labels: NDArray[Any]) -> NDArray[np.uint8]:
        """Resample a label map by the largest coverage of each grid voxel; of equal ones the lowest label."""
        result = np.zeros(self.shape, dtype=np.uint8)
        best = np.ones(self.shape, dtype=np.float32)
        turned = self.order.apply(labels.view(np.uint8) if labels.dtype == np.bool_ else labels)
        boxes = enumerate(find_objects(turned), start=1)
        shares = {value: self._share_of(turned, value, box) for value, box in boxes if box is not None}
        for box, share in shares.values():
            best[box] -= share  # coverage of the background
        for value, (box, share) in shares.items():
            wins = share > best[box] + _COVERAGE_ROUNDING
            result[box][wins] = value
            best[box] = np.maximum(best[box], share)
        return result

    def _share_of(self, labels: NDArray[Any], value: int, bounds: Box) -> tuple[Box, NDArray[np.float32]]:
        """The box of grid voxels that a label overlaps, and the covered fraction of each of them.

        `labels` are canonical (z, y, x); `bounds` is the bounding box of the label in them.
        """
        if self.native_to_grid is not None:
            z, y, x = (slice(0, n) for n in self.shape)
            return (z, y, x), self.to_grid(self.order.undo(labels == value))
        share = (labels[bounds] == value).astype(np.float32)
        box = []
        for axis, columns in enumerate(bounds):
            weights = antialiased_weights(
                self.native_shape[axis], self.native_spacing[2 - axis], self.shape[axis], self.spacing[2 - axis]
            )
            seen = np.flatnonzero(weights[:, columns].any(axis=1))
            rows = slice(int(seen[0]), int(seen[-1]) + 1) if len(seen) else slice(0, 0)
            share = np.moveaxis(np.tensordot(weights[rows, columns], share, axes=(1, axis)), 0, axis)
            box.append(rows)
        return (box[0], box[1], box[2]), share

    def nearest_to_grid(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Read a label map of the scan's own (k, j, i) geometry at the grid's voxel centres."""
        if self.native_to_grid is not None:
            return nearest_straight(self.order.apply(labels), np.linalg.inv(self.native_to_grid), self.shape)
        return self.order.apply(labels)[np.ix_(*self.nearest_indices())]

    def nearest_indices(self) -> list[NDArray[np.intp]]:
        """Along z, y, x of a scan that is not sheared: the canonical native plane nearest to each plane of the grid."""
        indices = []
        for axis, size in enumerate(self.native_shape):
            centres = (np.arange(self.shape[axis]) + 0.5) * self.spacing[2 - axis] / self.native_spacing[2 - axis]
            indices.append(np.minimum(centres.astype(int), size - 1))
        return indices


def model_grid(volume: Volume, *, spacing: tuple[float, float, float]) -> Grid:
    """The grid of `spacing` (x, y, z in mm) along the volume's canonical axes, covering all of it.

    Over a sheared volume it lies along the patient's axes.

    Raises:
        DiffusionSegmentError: GEOMETRY for an invalid matrix, or a scan of many metres.
    """
    check_geometry(volume.index_to_lps)
    turned, order = canonical(volume)
    native_spacing = turned.spacing
    shape_ijk = np.array(turned.shape_ijk)
    sheared = is_sheared(turned.index_to_lps)
    counts, matrix = (
        straight_box(turned.index_to_lps, shape_ijk, spacing)
        if sheared
        else _along_own_axes(turned.index_to_lps, shape_ijk, np.array(spacing))
    )
    if float(np.prod(counts, dtype=np.float64)) > _MAX_GRID_VOXELS:
        size = " x ".join(f"{n:.0f}" for n in counts * np.array(spacing))
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY, f"The scan covers {size} mm, more than the model can handle.", hint="Crop the scan."
        )
    x, y, z = (int(n) for n in counts)
    nx, ny, nz = turned.shape_ijk
    return Grid(
        order=order,
        native_shape=(nz, ny, nx),
        native_spacing=(float(native_spacing[0]), float(native_spacing[1]), float(native_spacing[2])),
        shape=(z, y, x),
        spacing=spacing,
        index_to_lps=matrix,
        native_to_grid=np.linalg.inv(matrix) @ turned.index_to_lps if sheared else None,
    )


def _along_own_axes(
    index_to_lps: NDArray[np.float64], shape_ijk: NDArray[Any], spacing: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Voxels along x, y, z and the matrix to LPS mm of a grid of `spacing` along a volume's own axes."""
    native_spacing = np.linalg.norm(index_to_lps[:3, :3], axis=0)
    ratio = spacing / native_spacing
    matrix = index_to_lps.copy()
    matrix[:3, :3] = index_to_lps[:3, :3] * ratio
    matrix[:3, 3] += index_to_lps[:3, :3] @ (0.5 * ratio - 0.5)
    return np.maximum(1, np.ceil(shape_ijk * native_spacing / spacing - 1e-6)).astype(int), matrix


def coarser_grid(grid: Grid, stride: tuple[int, int, int]) -> Grid:
    """The grid whose voxels each cover `stride` voxels (z, y, x) of `grid`, beginning at its first."""
    z, y, x = (-(-n // step) for n, step in zip(grid.shape, stride, strict=True))
    along_x, along_y, along_z = (s * step for s, step in zip(grid.spacing, reversed(stride), strict=True))
    steps = np.array(stride[::-1], dtype=np.float64)
    matrix = grid.index_to_lps.copy()
    matrix[:3, 3] += grid.index_to_lps[:3, :3] @ ((steps - 1) / 2)
    matrix[:3, :3] = grid.index_to_lps[:3, :3] * steps
    sheared = grid.native_to_grid
    return replace(
        grid,
        shape=(z, y, x),
        spacing=(along_x, along_y, along_z),
        index_to_lps=matrix,
        native_to_grid=None if sheared is None else np.linalg.inv(matrix) @ grid.index_to_lps @ sheared,
    )


def antialiased_weights(n_in: int, spacing_in: float, n_out: int, spacing_out: float) -> NDArray[np.float32]:
    """Matrix (n_out, n_in) of a linear kernel, widened to the output's spacing where that is coarser; rows sum to 1."""
    width = max(spacing_out / spacing_in, 1.0)
    centre = (np.arange(n_out) + 0.5) * spacing_out / spacing_in - 0.5
    centre = np.clip(centre, 0, n_in - 1)
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(n_in)[None, :] - centre[:, None]) / width)
    normalised: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return normalised.astype(np.float32)


def linear_taps(
    start: int, stop: int, spacing_out: float, n_in: int, spacing_in: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Lower and upper source index and the upper one's weight for output indices start..stop-1, clamped to the edge."""
    position = np.clip((np.arange(start, stop) + 0.5) * spacing_out / spacing_in - 0.5, 0, n_in - 1)
    low = np.floor(position).astype(np.intp)
    return low, np.minimum(low + 1, n_in - 1), (position - low).astype(np.float32)
