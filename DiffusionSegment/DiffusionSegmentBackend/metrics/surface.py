"""Normalised surface Dice at a tolerance in mm."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from monai.metrics.utils import get_code_to_measure_table
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from ..imaging.volume import Box

ROUNDING_MM = 1e-6

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class SurfaceElements:
    """Surface elements, each between eight voxels.

    Attributes:
        indices: index (n, 3) of the first of the eight voxels.
        areas: area (n,) in mm2.
    """

    indices: NDArray[np.intp]
    areas: NDArray[np.float64]

    def area_near(self, other: SurfaceElements, offsets: NDArray[np.intp]) -> float:
        """Area in mm2 of the elements at one of `offsets` (m, 3), nearest first, from an element of `other`."""
        low = other.indices.min(axis=0) - offsets.max(axis=0)
        high = other.indices.max(axis=0) - offsets.min(axis=0)
        candidates = np.flatnonzero(np.all((self.indices >= low) & (self.indices <= high), axis=1))
        # Padded by the largest offset on either side, so that no step leaves the box.
        corner, shape = low + offsets.min(axis=0), high - low + 1 + np.ptp(offsets, axis=0)
        occupied = np.zeros(shape, bool)
        occupied[tuple((other.indices - corner).T)] = True
        flat = occupied.ravel()
        positions = np.ravel_multi_index(tuple((self.indices[candidates] - corner).T), tuple(shape))
        strides = np.array([shape[1] * shape[2], shape[2], 1])
        near_area = 0.0
        for step in offsets @ strides:
            hit = flat[positions + step]
            near_area += float(self.areas[candidates[hit]].sum())
            positions, candidates = positions[~hit], candidates[~hit]
            if not len(positions):
                break
        return near_area


class LabelSurfaces:
    """Surfaces of labels 1..classes-1 of a label map (z, y, x) with `spacing` (z, y, x) in mm, each computed once."""

    def __init__(self, labels: NDArray[np.uint8], classes: int, spacing: Spacing) -> None:
        self.labels, self.spacing = labels, spacing
        self._boxes: list[Box | None] = find_objects(labels, max_label=classes - 1)
        self._surfaces: dict[int, SurfaceElements | None] = {}

    @property
    def values(self) -> range:
        """The label values."""
        return range(1, len(self._boxes) + 1)

    def of(self, value: int) -> SurfaceElements | None:
        """The surface of label `value`; None where the label is absent."""
        if value not in self._surfaces:
            box = self._boxes[value - 1]
            self._surfaces[value] = None if box is None else _surface_in(self.labels, value, box, self.spacing)
        return self._surfaces[value]


def surface_dice(predicted: LabelSurfaces, truth: LabelSurfaces, *, tolerance_mm: float = 2.0) -> NDArray[np.float64]:
    """Normalised surface Dice (0..1) of labels 1..classes-1 of two maps of the same shape and spacing.

    The share of the area of both surfaces that lies within `tolerance_mm` of the other one: Nikolov et al. 2018, "Deep
    learning to achieve clinically applicable segmentation of head and neck anatomy for radiotherapy". NaN for a label
    that is absent from the truth, 0 for one that is absent from the prediction alone. Equal to MONAI's
    `compute_surface_dice` with sub-voxel areas, without its convolution of dense volumes in floating point.

    All elements lie on one lattice, so the elements within the tolerance are at a fixed list of offsets, which are
    looked up instead of computing a distance transform.
    """
    scores = np.full(len(truth.values), np.nan)
    offsets = offsets_within(tolerance_mm, truth.spacing)
    for value in truth.values:
        expected, result = truth.of(value), predicted.of(value)
        if expected is None:
            continue
        if result is None:
            scores[value - 1] = 0
            continue
        near = result.area_near(expected, offsets) + expected.area_near(result, offsets)
        scores[value - 1] = near / (result.areas.sum() + expected.areas.sum())
    return scores


def offsets_within(tolerance_mm: float, spacing: Spacing) -> NDArray[np.intp]:
    """Offsets (m, 3) along z, y, x on a lattice of `spacing` in mm, at most `tolerance_mm` long, shortest first.

    A nanometre is allowed for rounding.
    """
    limit = tolerance_mm + ROUNDING_MM
    axes = [np.arange(-int(limit // step), int(limit // step) + 1) for step in spacing]
    steps = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    distances = np.linalg.norm(steps * np.array(spacing), axis=1)
    order = np.argsort(distances, kind="stable")
    offsets: NDArray[np.intp] = steps[order][distances[order] <= limit]
    return offsets


@lru_cache(maxsize=8)
def _area_table(spacing: Spacing) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Area in mm2 by neighbour code (256,), and the weight of each of the eight voxels in the code (2, 2, 2)."""
    areas, weights = (t.cpu().numpy() for t in get_code_to_measure_table(spacing))
    return areas.astype(np.float64), weights.reshape(2, 2, 2).astype(np.uint8)


def _surface_in(labels: NDArray[np.uint8], value: int, box: Box, spacing: Spacing) -> SurfaceElements:
    """Surface of label `value`, whose voxels all lie in `box`.

    An element lies between eight voxels. Its code (0..255) has a bit for each of them with the label, and marching
    cubes give the area in mm2 of each code.
    """
    areas, weights = _area_table(spacing)
    # Padding closes a surface at the edge of the volume.
    mask = np.pad(labels[box] == value, 1).view(np.uint8)
    depth, height, width = (size - 1 for size in mask.shape)
    codes = np.zeros((depth, height, width), np.uint8)
    for (z, y, x), weight in np.ndenumerate(weights):
        codes |= mask[z : z + depth, y : y + height, x : x + width] * weight
    elements = np.nonzero((codes != 0) & (codes != 255))
    corner = np.array([side.start for side in box])
    return SurfaceElements(np.stack(elements, axis=1) + corner, areas[codes[elements]])
