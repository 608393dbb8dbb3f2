"""Label maps on the grid of a scan: as they are where voxels agree, else resampled in patient coordinates.

A voxel of the scan gets the label with the largest share of it. Shares come from linear interpolation of each label's
mask, widened to the voxels of the scan where these are larger (anti-aliasing).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, find_objects

from ..errors import DiffusionSegmentError, ErrorCode
from .alignment import align_to_scan
from .volume import Box, Volume

_SLAB = 16
# Shares that differ by less are equal up to rounding.
_SHARE_ROUNDING = 1e-4
# Axes that run apart by less than this, in voxels over the whole map, are parallel.
_MAX_DRIFT_VOXELS = 0.25
_MAX_SUB_VOXELS = 8
# Volume outside the scan from which there is a note.
_MIN_LOST_ML = 0.1


@dataclass(frozen=True)
class FittedLabels:
    """A label map on the voxels of a scan.

    Attributes:
        labels: (k, j, i), uint8, 0 outside the map.
        covered: mask (k, j, i) of the voxels inside the map; None where it covers the scan.
        notes: sentences for the user on how it was resampled, and what of it lies outside the scan.
    """

    labels: NDArray[np.uint8]
    covered: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()


def fit_to_scan(volume: Volume, scan: Volume, *, what: str, whole: bool = True) -> FittedLabels:
    """A label map on the voxels of a scan, resampled where its own are others.

    Args:
        volume: the label map (k, j, i), uint8.
        scan: the scan.
        what: names the map in messages.
        whole: whether voxels of the scan outside the map are unknown (`FittedLabels.covered`), not background.

    Raises:
        DiffusionSegmentError: GEOMETRY for a map without a labelled voxel inside the scan.
    """
    try:
        return FittedLabels(align_to_scan(volume, scan, what=what, hint="", whole=whole))
    except DiffusionSegmentError:
        # Other voxels, another extent, or labels outside the scan.
        pass
    kept = _inside(volume, scan) & (volume.array > 0)
    labelled = int(np.count_nonzero(volume.array))
    if labelled and not kept.any():
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY,
            f"{what} does not overlap the scan: {_apart(volume, scan)}.",
            hint="Choose the segmentation of this scan.",
        )
    covered = _inside(scan, volume) if whole else None
    if covered is not None and covered.all():
        covered = None
    lost_ml = (labelled - int(np.count_nonzero(kept))) * volume.voxel_ml
    return FittedLabels(
        resampled_labels(volume, scan), covered, tuple(_notes(volume, scan, covered, lost_ml, what=what))
    )


def resampled_labels(volume: Volume, scan: Volume) -> NDArray[np.uint8]:
    """The label (k, j, i) with the largest share of each voxel of a scan; of equal ones the lowest, 0 outside the map.

    The grids may differ in spacing, extent, orientation and shear.
    """
    shares = _shares_of(volume, scan)
    result = np.zeros(_shape(scan), dtype=np.uint8)
    masks = [(value, box) for value, box in enumerate(find_objects(shares.labels), start=1) if box is not None]
    reached = [(value, box, shares.reach(box)) for value, box in masks]
    for k in range(0, len(result), _SLAB):
        slab = slice(k, min(k + _SLAB, len(result)))
        background = np.ones((slab.stop - slab.start, *result.shape[1:]), dtype=np.float32)
        parts = []
        for value, box, (z, y, x) in reached:
            rows = slice(max(z.start, slab.start), min(z.stop, slab.stop))
            if rows.start < rows.stop and y.start < y.stop and x.start < x.stop:
                share = shares.of(value, box, (rows, y, x))
                part = (slice(rows.start - k, rows.stop - k), y, x)
                background[part] -= share
                parts.append((value, part, share))
        best, target = background, result[slab]
        for value, part, share in parts:
            wins = share > best[part] + _SHARE_ROUNDING
            target[part][wins] = value
            best[part] = np.maximum(best[part], share)
    return result


@dataclass(frozen=True)
class _AlignedShares:
    """Shares of labels whose axes are parallel to those of the scan, axis by axis.

    `labels` has the order of the scan's axes (k, j, i); `weights` are those of its voxels (scan, map) along each axis.
    """

    labels: NDArray[np.uint8]
    weights: tuple[NDArray[np.float32], ...]

    def reach(self, box: Box) -> Box:
        """The box of the voxels of the scan that a box of the map has a share of."""
        z, y, x = (_extent(weights[:, side], 0) for weights, side in zip(self.weights, box, strict=True))
        return z, y, x

    def of(self, value: int, box: Box, part: Box) -> NDArray[np.float32]:
        """The share of a label, whose voxels are in `box` of the map, of each voxel in a part of the scan."""
        sides = []
        for weights, side, rows in zip(self.weights, box, part, strict=True):
            used = _extent(weights[rows, side], 1)
            sides.append(slice(side.start + used.start, side.start + used.stop))
        share: NDArray[np.float32] = (self.labels[sides[0], sides[1], sides[2]] == value).astype(np.float32)
        for axis, (weights, side, rows) in enumerate(zip(self.weights, sides, part, strict=True)):
            share = np.moveaxis(np.tensordot(weights[rows, side], share, axes=(1, axis)), 0, axis)
        return share


def _shares_of(volume: Volume, scan: Volume) -> _AlignedShares | _ObliqueShares:
    """The shares of the labels of a map, axis by axis where its axes are parallel to those of the scan."""
    labels, shape, scan_to_map = volume.array, _shape(scan), _index_map(scan, volume)
    steps, start = scan_to_map[:3, :3], scan_to_map[:3, 3]
    axes = [int(axis) for axis in np.abs(steps).argmax(axis=0)]
    along = np.zeros((3, 3))
    along[axes, range(3)] = steps[axes, range(3)]
    drift = float((np.abs(steps - along) @ np.array(shape[::-1])).max())
    if sorted(axes) != [0, 1, 2] or drift > _MAX_DRIFT_VOXELS:
        return _ObliqueShares(labels, scan_to_map, shape)
    # The middle of the scan is exact where axes drift apart.
    start = start + (steps - along) @ ((np.array(shape[::-1]) - 1) / 2)
    turned = labels.transpose([2 - axes[2 - a] for a in range(3)])
    weights = [
        _weights(shape[a], float(steps[axes[2 - a], 2 - a]), float(start[axes[2 - a]]), turned.shape[a])
        for a in range(3)
    ]
    return _AlignedShares(turned, tuple(weights))


def _weights(count: int, step: float, start: float, size: int) -> NDArray[np.float32]:
    """Matrix (count, size) of a linear kernel at start + n * step of an axis, widened to steps above 1; 0 outside."""
    position = start + step * np.arange(count)
    centre = np.clip(position, 0, size - 1)
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(size)[None, :] - centre[:, None]) / max(abs(step), 1.0))
    weights /= weights.sum(axis=1, keepdims=True)
    weights[(position < -0.5) | (position > size - 0.5)] = 0
    return np.asarray(weights, dtype=np.float32)


@dataclass(frozen=True)
class _ObliqueShares:
    """Shares of labels on an oblique or sheared grid, as the mean of points in every voxel of a scan of `shape`."""

    labels: NDArray[np.uint8]
    scan_to_map: NDArray[np.float64]
    shape: tuple[int, int, int]

    def reach(self, box: Box) -> Box:
        """The box of the voxels of the scan that a box of the map may have a share of."""
        corners = np.array([(*corner[::-1], 1.0) for corner in product(*((s.start - 1.0, float(s.stop)) for s in box))])
        native = (corners @ np.linalg.inv(self.scan_to_map).T)[:, 2::-1]
        low, high = np.floor(native.min(axis=0)) - 1, np.ceil(native.max(axis=0)) + 2
        z, y, x = (
            slice(int(np.clip(first, 0, size)), int(np.clip(last, 0, size)))
            for first, last, size in zip(low, high, self.shape, strict=True)
        )
        return z, y, x

    def of(self, value: int, box: Box, part: Box) -> NDArray[np.float32]:
        """As `_AlignedShares.of`."""
        mask = np.pad((self.labels[box] == value).astype(np.float32), 1)
        steps = self.scan_to_map[2::-1, 2::-1]
        first = self.scan_to_map[2::-1, 3] + steps @ [s.start for s in part] - [s.start - 1 for s in box]
        size = tuple(s.stop - s.start for s in part)
        points = list(self._points())
        total: NDArray[np.float32] = np.zeros(size, dtype=np.float32)
        for point in points:
            total += affine_transform(
                mask, steps, offset=first + steps @ point, output_shape=size, order=1, mode="constant", prefilter=False
            )
        total /= len(points)
        return total

    def _points(self) -> Iterator[NDArray[np.float64]]:
        """Points (k, j, i) in a voxel of the scan around its centre, at most a voxel of the map apart."""
        lengths = np.abs(self.scan_to_map[2::-1, 2::-1]).max(axis=0)
        counts = [int(np.clip(np.ceil(length - 1e-3), 1, _MAX_SUB_VOXELS)) for length in lengths]
        for index in product(*map(range, counts)):
            yield (np.array(index) + 0.5) / counts - 0.5


def _inside(volume: Volume, other: Volume) -> NDArray[np.bool_]:
    """Which voxels (k, j, i) of a volume lie inside another one."""
    matrix, shape = _index_map(volume, other), _shape(volume)
    result = np.ones(shape, dtype=np.bool_)
    steps, start = matrix[2::-1, 2::-1], matrix[2::-1, 3]
    for k in range(0, shape[0], _SLAB):
        slab = result[k : k + _SLAB]
        index = np.ogrid[k : k + len(slab), : shape[1], : shape[2]]
        for along, first, size in zip(steps, start, _shape(other), strict=True):
            # An axis without influence stays of length 1, so that parallel grids take no memory.
            used = [step * axis for step, axis in zip(along, index, strict=True) if abs(step) > 1e-9]
            position = first + sum(used[1:], start=used[0])
            slab &= (position >= -0.5) & (position <= size - 0.5)
    return result


def _extent(weights: NDArray[np.float32], axis: int) -> slice:
    """From the first to the last row (axis 0) or column (axis 1) with a weight; empty where there is none."""
    indices = np.flatnonzero(weights.any(axis=1 - axis))
    return slice(int(indices[0]), int(indices[-1]) + 1) if len(indices) else slice(0, 0)


def _index_map(volume: Volume, other: Volume) -> NDArray[np.float64]:
    """The matrix from (i, j, k, 1) of a volume to that of another one."""
    return np.asarray(np.linalg.inv(other.index_to_lps) @ volume.index_to_lps, dtype=np.float64)


def _shape(volume: Volume) -> tuple[int, int, int]:
    i, j, k = volume.shape_ijk
    return k, j, i


def _notes(
    volume: Volume, scan: Volume, covered: NDArray[np.bool_] | None, lost_ml: float, *, what: str
) -> Iterator[str]:
    ours, theirs = (np.sort(v.spacing) for v in (volume, scan))
    if not np.allclose(ours, theirs, rtol=1e-3, atol=1e-4):
        yield f"{what} has voxels of {_millimetres(volume)}, the scan of {_millimetres(scan)}: it was resampled."
    elif not _same_lattice(volume, scan):
        yield f"The voxels of {what} lie between those of the scan: it was resampled."
    if covered is not None:
        share = np.count_nonzero(covered) / covered.size
        yield f"{what} covers {100 * share:.0f} % of the scan: the rest was not reviewed."
    if lost_ml >= _MIN_LOST_ML:
        yield f"{lost_ml:.1f} mL of {what} lie outside the scan and were left out."


def _same_lattice(volume: Volume, scan: Volume) -> bool:
    """Whether the voxels of two grids of equal spacing agree where both have one, to a quarter voxel."""
    exact = _index_map(volume, scan)
    ends = np.array([(*corner, 1.0) for corner in product(*((0, n - 1) for n in volume.shape_ijk))])
    return bool(np.abs((exact - np.rint(exact)) @ ends.T).max() <= _MAX_DRIFT_VOXELS)


def _millimetres(volume: Volume) -> str:
    return " x ".join(f"{value:.4g}" for value in volume.spacing) + " mm"


def _apart(volume: Volume, scan: Volume) -> str:
    centres = [v.index_to_lps @ [*((np.array(v.shape_ijk) - 1) / 2), 1.0] for v in (volume, scan)]
    distance: Any = np.linalg.norm((centres[0] - centres[1])[:3])
    return f"their centres lie {float(distance):.4g} mm apart"
