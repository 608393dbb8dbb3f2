"""Errors implanted into the mask of an organ, in the forms in which networks and readers make them.

All work on the signed distance to the surface of the mask in mm, positive inside. A mask without error passes through
the same smoothing as one with errors, so that they differ in the error alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from DiffusionSegmentBackend.imaging.balls import Spacing
from DiffusionSegmentBackend.imaging.signed_distance import signed_distance
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
Distance = NDArray[np.float32]

_MAX_ERRORS = 3
_CLEAN_PROBABILITY = 0.15
_MAX_SMOOTHING_MM = 2.0


@dataclass(frozen=True, kw_only=True)
class ErrorScene:
    """What an error may depend on: a patch of a labelled scan.

    Attributes:
        mask: the organ (z, y, x).
        image: (z, y, x) in -1..1.
        labels: the true label map (z, y, x).
        spacing: mm along z, y, x.
    """

    mask: Mask
    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    spacing: Spacing


def with_errors(scene: ErrorScene, random: np.random.Generator) -> Mask:
    """The mask with up to three random errors; one in seven has none."""
    distance = signed_distance(scene.mask, scene.spacing)
    if random.random() >= _CLEAN_PROBABILITY and scene.mask.any():
        for _ in range(int(random.integers(1, _MAX_ERRORS + 1))):
            error = ERRORS[int(random.integers(len(ERRORS)))]
            distance = error(distance, scene, random)
    sigma = [random.uniform(0, _MAX_SMOOTHING_MM) / step for step in scene.spacing]
    smoothed = ndimage.gaussian_filter(np.clip(distance, -50, 50), sigma)
    result: Mask = smoothed > 0
    return result


def wavy(distance: Distance, scene: ErrorScene, random: np.random.Generator) -> Distance:
    """Bulges and dents of 1.5 to 6 mm all over the surface, 8 to 24 mm wide."""
    sigma = [random.uniform(8, 24) / 2 / step for step in scene.spacing]
    field = ndimage.gaussian_filter(random.standard_normal(distance.shape).astype(np.float32), sigma)
    amplitude = np.float32(random.uniform(1.5, 6) / max(float(field.std()), 1e-6))
    result: Distance = distance + amplitude * field
    return result


def grown_or_shrunk(distance: Distance, scene: ErrorScene, random: np.random.Generator) -> Distance:
    """The whole surface moved by 2 to 6 mm outwards or inwards."""
    result: Distance = distance + np.float32(random.uniform(2, 6) * random.choice([-1, 1]))
    return result


def lump(distance: Distance, scene: ErrorScene, random: np.random.Generator) -> Distance:
    """A ball of radius 6 to 20 mm added at the surface."""
    centre = _surface_voxel(distance, random)
    result: Distance = np.maximum(distance, random.uniform(6, 20) - _distance_to(centre, distance.shape, scene.spacing))
    return result


def bite(distance: Distance, scene: ErrorScene, random: np.random.Generator) -> Distance:
    """A ball of radius 6 to 20 mm removed at the surface."""
    centre = _surface_voxel(distance, random)
    result: Distance = np.minimum(distance, _distance_to(centre, distance.shape, scene.spacing) - random.uniform(6, 20))
    return result


def cut(distance: Distance, scene: ErrorScene, random: np.random.Generator) -> Distance:
    """All on one side of a plane removed, through a random voxel of the mask and mostly across the body axis."""
    voxels = np.argwhere(distance > 0)
    if not len(voxels):
        return distance
    normal = random.standard_normal(3) * np.array([1.0, 0.3, 0.3])
    normal /= np.linalg.norm(normal)
    at = voxels[int(random.integers(len(voxels)))]
    axes = np.meshgrid(*[np.arange(n) for n in distance.shape], indexing="ij", sparse=True)
    side = sum((axis - c) * step * n for axis, c, step, n in zip(axes, at, scene.spacing, normal, strict=True))
    result: Distance = np.minimum(distance, np.asarray(side, np.float32))
    return result


def leak(distance: Distance, scene: ErrorScene, random: np.random.Generator) -> Distance:
    """Neighbouring tissue of the same intensity added within 12 to 30 mm of a voxel of the surface."""
    if not (distance > 0).any():
        return distance
    values = scene.image[distance > 0]
    alike = np.abs(scene.image - np.median(values)) < max(0.05, random.uniform(0.5, 1.5) * float(values.std()))
    centre = _surface_voxel(distance, random)
    near = _distance_to(centre, distance.shape, scene.spacing) < random.uniform(12, 30)
    pieces, _ = ndimage.label((alike & near) | (distance > 0))
    joined = np.isin(pieces, np.unique(pieces[distance > 0]))
    result: Distance = np.maximum(
        distance, signed_distance(ndimage.binary_opening(joined) | (distance > 0), scene.spacing)
    )
    return result


def neighbour_taken(distance: Distance, scene: ErrorScene, random: np.random.Generator) -> Distance:
    """A part of an adjoining organ of the label map added, within 15 to 45 mm of a random voxel of it."""
    others = np.argwhere((scene.labels > 0) & (distance < 0) & (distance > -12))
    if not len(others):
        return distance
    centre = others[int(random.integers(len(others)))]
    organ = scene.labels == scene.labels[tuple(centre)]
    near = _distance_to(centre, distance.shape, scene.spacing) < random.uniform(15, 45)
    result: Distance = np.maximum(distance, signed_distance(organ & near, scene.spacing))
    return result


def stray_piece(distance: Distance, scene: ErrorScene, random: np.random.Generator) -> Distance:
    """A separate ball of radius 5 to 15 mm in tissue."""
    tissue = np.argwhere((scene.image > -0.95) & (distance < -5))
    if not len(tissue):
        return distance
    centre = tissue[int(random.integers(len(tissue)))]
    result: Distance = np.maximum(distance, random.uniform(5, 15) - _distance_to(centre, distance.shape, scene.spacing))
    return result


Error = Callable[[Distance, ErrorScene, np.random.Generator], Distance]
ERRORS: tuple[Error, ...] = (
    wavy,
    wavy,
    grown_or_shrunk,
    lump,
    bite,
    bite,
    cut,
    leak,
    neighbour_taken,
    neighbour_taken,
    stray_piece,
)


def _surface_voxel(distance: Distance, random: np.random.Generator) -> NDArray[np.intp]:
    """A random voxel near the surface; the one nearest to it where none is near."""
    near = np.argwhere(np.abs(distance) < 3)
    if len(near):
        return np.asarray(near[int(random.integers(len(near)))])
    return np.array(np.unravel_index(int(np.abs(distance).argmin()), distance.shape))


def _distance_to(centre: NDArray[np.intp], shape: tuple[int, ...], spacing: Spacing) -> Distance:
    axes = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij", sparse=True)
    squares = [((axis - c) * step) ** 2 for axis, c, step in zip(axes, centre, spacing, strict=True)]
    result: Distance = np.sqrt(squares[0] + squares[1] + squares[2]).astype(np.float32)
    return result
