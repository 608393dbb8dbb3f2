"""The canvas of the phantom: smooth shapes given by signed distances, painted with partial volume.

All lengths are millimetres in the phantom's own body frame: x to the patient's left, y to the back, z to the head; the
origin lies on the aorta halfway between the kidneys. Distances are negative inside a shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from ..imaging.volume import Box

Field: TypeAlias = NDArray[np.float32]
# Coordinates x, y, z of the columns, rows and slices of a grid, in mm.
Axes: TypeAlias = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
_FAR = np.float32(1e3)
_HALO_MM = 5.0


@dataclass(frozen=True)
class Region:
    """A box of the canvas: its slices, and the body coordinates of its voxels, each (k, j, i) in mm."""

    box: Box
    x: Field
    y: Field
    z: Field


class Canvas:
    """Hounsfield units and labels on a voxel grid, with the body coordinates of every voxel.

    Args:
        axes: coordinates x, y, z of the grid's columns, rows and slices, before the displacement.
        warp_mm: bound of the smooth displacement field that varies the anatomy.
        rng: generator of the anatomy.
        noise: generator of what depends on the grid, so that one anatomy can be drawn at several spacings.
    """

    def __init__(
        self,
        axes: Axes,
        *,
        warp_mm: float,
        rng: np.random.Generator,
        noise: np.random.Generator,
    ) -> None:
        self.axes = axes
        self.shape = (len(axes[2]), len(axes[1]), len(axes[0]))
        spacing = [float(axis[1] - axis[0]) if len(axis) > 1 else 1.0 for axis in axes]
        self.edge_mm = float(np.prod(spacing) ** (1 / 3))
        bends = [waves(axes, rng, amplitude=warp_mm, wavelength=(110.0, 320.0), count=5) for _ in range(3)]
        self._reach = [float(np.abs(bend).max()) + _HALO_MM + self.edge_mm for bend in bends]
        x, y, z = (np.asarray(axis, dtype=np.float32) for axis in axes)
        self.x: Field = bends[0] + x
        self.y: Field = bends[1] + y[:, None]
        self.z: Field = bends[2] + z[:, None, None]
        self.hu = np.full(self.shape, -1000.0, dtype=np.float32)
        self.labels = np.zeros(self.shape, dtype=np.uint8)
        self.texture = smooth_noise(self.shape, noise, sigma=[3.5 / s for s in reversed(spacing)])

    def region(self, low: ArrayLike, high: ArrayLike) -> Region:
        """The voxels that can lie between the corners `low` and `high` (x, y, z), halo included; may be empty."""
        spans = []
        for axis, a, b, reach in zip(self.axes, np.asarray(low), np.asarray(high), self._reach, strict=True):
            spans.append(slice(*(int(n) for n in np.searchsorted(axis, (a - reach, b + reach)))))
        box = (spans[2], spans[1], spans[0])
        return Region(box, self.x[box], self.y[box], self.z[box])

    def whole(self) -> Region:
        """Every voxel."""
        box = (slice(0, self.shape[0]), slice(0, self.shape[1]), slice(0, self.shape[2]))
        return Region(box, self.x, self.y, self.z)

    def paint(
        self, region: Region, distance: Field, hu: Field | float, *, label: int | None = 0, texture: float = 0.0
    ) -> None:
        """Blend `hu` into the image where `distance` is negative, with partial volume at the boundary.

        `label` is written where more than half of a voxel is covered; None keeps the present label. `texture` is the
        standard deviation in HU of a smooth random variation of the tissue.
        """
        cover = np.clip(0.5 - distance / self.edge_mm, 0.0, 1.0)
        image = self.hu[region.box]
        value = hu + texture * self.texture[region.box] if texture else hu
        image += cover * (value - image)
        if label is not None:
            self.labels[region.box][cover > 0.5] = label

    def tube(
        self, points: ArrayLike, radii: ArrayLike, *, flat: float = 1.0, step_mm: float = 9.0
    ) -> tuple[Region, Field]:
        """Distance to a tube along a smooth curve through `points` (n, 3) with `radii` (n,).

        `flat` below 1 flattens the tube from front to back.
        """
        path, thickness = smooth_path(np.asarray(points, float), np.asarray(radii, float), step_mm=step_mm)
        widest = thickness.max()
        whole = self.region(path.min(axis=0) - widest, path.max(axis=0) + widest)
        distance = np.full(whole.x.shape, _FAR, dtype=np.float32)
        for index in range(len(path) - 1):
            ends, widths = path[index : index + 2], thickness[index : index + 2]
            part = self.region(ends.min(axis=0) - widths.max(), ends.max(axis=0) + widths.max())
            inner = tuple(slice(p.start - w.start, p.stop - w.start) for p, w in zip(part.box, whole.box, strict=True))
            near = capsule(part, ends[0], ends[1], widths[0], widths[1], flat=flat)
            distance[inner] = np.minimum(distance[inner], near)
        return whole, distance


def capsule(
    at: Region,
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    start_radius: float,
    end_radius: float,
    *,
    flat: float = 1.0,
) -> Field:
    """Distance to a straight piece of tube whose radius changes evenly from one end to the other."""
    axis = end - start
    axis_y = axis[1] / flat
    length2 = max(float(axis[0] ** 2 + axis_y**2 + axis[2] ** 2), 1e-6)
    dx, dy, dz = at.x - start[0], (at.y - start[1]) / flat, at.z - start[2]
    along = np.clip((dx * axis[0] + dy * axis_y + dz * axis[2]) / length2, 0.0, 1.0)
    dx -= along * axis[0]
    dy -= along * axis_y
    dz -= along * axis[2]
    distance: Field = np.sqrt(dx * dx + dy * dy + dz * dz) - (start_radius + along * (end_radius - start_radius))
    return distance


def ellipsoid(at: Region, centre: ArrayLike, radii: ArrayLike, *, tilt: float = 0.0, bend: float = 0.0) -> Field:
    """Approximate distance to an ellipsoid.

    `tilt` (radians) leans the upper end to the patient's left; `bend` (1/mm) curves both ends to the left.
    """
    (cx, cy, cz), (rx, ry, rz) = np.asarray(centre, float), np.asarray(radii, float)
    dx, dy, dz = at.x - cx, at.y - cy, at.z - cz
    if tilt:
        dx, dz = dx * np.cos(tilt) - dz * np.sin(tilt), dx * np.sin(tilt) + dz * np.cos(tilt)
    if bend:
        dx = dx - bend * dz * dz
    reach = np.sqrt((dx / rx) ** 2 + (dy / ry) ** 2 + (dz / rz) ** 2)
    slope = np.sqrt((dx / rx**2) ** 2 + (dy / ry**2) ** 2 + (dz / rz**2) ** 2)
    distance: Field = (reach * (reach - 1.0) / np.maximum(slope, 1e-3)).astype(np.float32)
    return distance


def union(a: Field, b: Field, *, blend_mm: float) -> Field:
    """Smooth union of two shapes, rounded over `blend_mm`."""
    overlap = np.maximum(blend_mm - np.abs(a - b), 0.0)
    joined: Field = np.minimum(a, b) - overlap * overlap / (4 * blend_mm)
    return joined


def cut(shape: Field, away: Field, *, blend_mm: float = 2.0) -> Field:
    """Smooth difference `shape` minus `away`, rounded over `blend_mm`."""
    return -union(-shape, away, blend_mm=blend_mm)


def smooth_path(
    points: NDArray[np.float64], radii: NDArray[np.float64], *, step_mm: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A Catmull-Rom curve through `points` (n, 3) in steps of about `step_mm`, with the radius at each step."""
    knots = np.column_stack([points, radii])
    knots = np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]])
    pieces = []
    for p0, p1, p2, p3 in zip(knots, knots[1:], knots[2:], knots[3:], strict=False):
        count = max(1, round(float(np.linalg.norm(p2[:3] - p1[:3])) / step_mm))
        t = (np.arange(count) / count)[:, None]
        bend = (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3
        pieces.append(p1 + 0.5 * bend)
    path = np.vstack([*pieces, knots[-2:-1]])
    return path[:, :3], np.maximum(path[:, 3], 0.3)


def waves(
    axes: Axes,
    rng: np.random.Generator,
    *,
    amplitude: float,
    wavelength: tuple[float, float],
    count: int,
) -> Field:
    """A smooth random field (k, j, i): `count` standing waves with wavelengths in mm; `amplitude` bounds the sum."""
    total = np.zeros((len(axes[2]), len(axes[1]), len(axes[0])), dtype=np.float32)
    for _ in range(count):
        lengths, phases = rng.uniform(*wavelength, 3), rng.uniform(0, 2 * np.pi, 3)
        x, y, z = (
            np.sin(2 * np.pi * axis / length + phase).astype(np.float32)
            for axis, length, phase in zip(axes, lengths, phases, strict=True)
        )
        total += (amplitude / count**0.5) * (z[:, None, None] * y[:, None]) * x
    return total


def ripple(at: Region, rng: np.random.Generator, *, amplitude: float, wavelength: tuple[float, float]) -> Field:
    """A random field over body coordinates to add to a distance, within +-`amplitude` mm."""
    total = np.zeros(at.x.shape, dtype=np.float32)
    for _ in range(3):
        direction = rng.normal(size=3)
        wave = direction / np.linalg.norm(direction) * (2 * np.pi / rng.uniform(*wavelength))
        total += np.sin(at.x * wave[0] + at.y * wave[1] + at.z * wave[2] + rng.uniform(0, 2 * np.pi))
    return total * np.float32(amplitude / 3)


def smooth_noise(shape: tuple[int, ...], rng: np.random.Generator, *, sigma: list[float]) -> Field:
    """Gaussian noise of unit standard deviation, smoothed by `sigma` voxels (k, j, i)."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap", truncate=2.5)
    normalized: Field = noise / max(float(noise.std()), 1e-6)
    return normalized
