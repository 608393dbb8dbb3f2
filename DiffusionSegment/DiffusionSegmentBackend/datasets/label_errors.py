"""Simulated errors of label maps: an organ deleted, inserted, swapped with its pair, cut off, or leaked.

Every function takes a label map (z, y, x), the spacing (z, y, x) in mm and a random generator, and returns a new label
map; it is equal to the given one where the error is not possible. The axes are those of the model's grid: z towards
superior, y towards posterior, x towards left. These errors have the scale of organs; corruptions of a boundary, as
those of nnQC (arXiv 2511.09588), are not among them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects, gaussian_filter

Labels = NDArray[np.uint8]
Spacing = tuple[float, float, float]

# Attempts to move the shape of an organ to a position where it covers background.
_ATTEMPTS = 50
_MIN_FREE_SHARE = 0.5


def present_labels(labels: Labels) -> list[int]:
    """The label values of a map, background excluded."""
    return [int(value) for value in np.unique(labels) if value]


def delete_organ(labels: Labels, spacing: Spacing, rng: np.random.Generator, *, value: int | None = None) -> Labels:
    """Make label `value`, or a random one, background."""
    result = labels.copy()
    result[labels == _chosen(labels, value, rng)] = 0
    return result


def insert_ball(
    labels: Labels,
    spacing: Spacing,
    rng: np.random.Generator,
    *,
    value: int,
    radius_mm: tuple[float, float] = (12.0, 25.0),
) -> Labels:
    """Give label `value` to the background in a ball of random radius around a random voxel of background.

    The centre lies in the bounding box of the organs.
    """
    result = labels.copy()
    box = find_objects((labels > 0).astype(np.uint8))
    if not box or not (labels[box[0]] == 0).any():
        return result
    free = np.argwhere(labels[box[0]] == 0)
    centre = free[rng.integers(len(free))] + [side.start for side in box[0]]
    ball = _distance_to_point(labels.shape, centre, spacing) <= rng.uniform(*radius_mm)
    result[ball & (labels == 0)] = value
    return result


def insert_shape(
    labels: Labels, spacing: Spacing, rng: np.random.Generator, *, value: int, shape_of: int | None = None
) -> Labels:
    """Give label `value` to the background under a moved copy of organ `shape_of`, or of a random other organ.

    At least half of the copy lies on background.
    """
    result = labels.copy()
    source = _chosen(labels, shape_of, rng, exclude=value)
    box = find_objects((labels == source).astype(np.uint8)) if source else []
    if not box:
        return result
    shape = labels[box[0]] == source
    size = np.count_nonzero(shape)
    for _ in range(_ATTEMPTS):
        corner = [int(rng.integers(n - m + 1)) for n, m in zip(labels.shape, shape.shape, strict=True)]
        window = tuple(slice(c, c + m) for c, m in zip(corner, shape.shape, strict=True))
        covered = shape & (labels[window] == 0)
        if np.count_nonzero(covered) >= _MIN_FREE_SHARE * size:
            result[window][covered] = value
            break
    return result


def swap_sides(
    labels: Labels, spacing: Spacing, rng: np.random.Generator, *, pairs: Sequence[tuple[int, int]]
) -> Labels:
    """Exchange the two labels of one of `pairs` (right, left), a random one of those that the map shows."""
    present = set(present_labels(labels))
    shown = [pair for pair in pairs if present.intersection(pair)]
    result = labels.copy()
    if shown:
        first, second = shown[rng.integers(len(shown))]
        result[labels == first], result[labels == second] = second, first
    return result


def lose_slab(
    labels: Labels,
    spacing: Spacing,
    rng: np.random.Generator,
    *,
    value: int | None = None,
    share: tuple[float, float] = (0.25, 0.5),
) -> Labels:
    """Make the uppermost or lowermost slices of an organ background, with about a `share` of its voxels."""
    result = labels.copy()
    mask = labels == _chosen(labels, value, rng)
    counts = mask.sum(axis=(1, 2))
    if not counts.any() or not labels[mask].any():
        return result
    lost = rng.uniform(*share)
    from_below = np.cumsum(counts) / counts.sum()
    from_above = np.cumsum(counts[::-1])[::-1] / counts.sum()
    cut = (from_below if rng.random() < 0.5 else from_above) <= lost
    result[cut[:, None, None] & mask] = 0
    return result


def leak(
    labels: Labels,
    spacing: Spacing,
    rng: np.random.Generator,
    *,
    value: int | None = None,
    direction: tuple[float, float, float] | None = None,
    depth_mm: tuple[float, float] = (15.0, 30.0),
) -> Labels:
    """Grow an organ by a ball around a voxel of its surface, over background and neighbours.

    The voxel is random, or among the foremost 2 % along `direction` (z, y, x); from the liver to the heart it is
    (1, -1, 1), towards superior, anterior and left. The radius of the ball is random in `depth_mm`.
    """
    result = labels.copy()
    mask = labels == _chosen(labels, value, rng)
    if not mask.any() or not labels[mask].any():
        return result
    surface = np.argwhere(mask & ~binary_erosion(mask))
    if direction is not None:
        along = (surface * np.array(spacing)) @ np.array(direction)
        surface = surface[along >= np.quantile(along, 0.98)]
    centre = surface[rng.integers(len(surface))]
    ball = _distance_to_point(labels.shape, centre, spacing) <= rng.uniform(*depth_mm)
    result[ball] = labels[mask][0]
    return result


def softened(labels: Labels, spacing: Spacing, classes: int, *, sigma_mm: float = 3.0) -> NDArray[np.float16]:
    """Probabilities (classes, z, y, x): the one-hot map filtered by a Gaussian, as of a segmenter without errors."""
    result = np.zeros((classes, *labels.shape), np.float32)
    sigma = [sigma_mm / step for step in spacing]
    for value in (0, *present_labels(labels)):
        result[value] = gaussian_filter((labels == value).astype(np.float32), sigma)
    result /= result.sum(axis=0)
    return result.astype(np.float16)


def one_hot(labels: Labels, classes: int) -> NDArray[np.float16]:
    """Probabilities (classes, z, y, x), each 0 or 1."""
    return np.stack([labels == value for value in range(classes)]).astype(np.float16)


def with_error(
    probabilities: NDArray[np.float16], before: Labels, after: Labels, spacing: Spacing, *, rim_mm: float = 9.0
) -> NDArray[np.float16]:
    """Probabilities (classes, z, y, x) of the label map `before` with the error that leads to the map `after`.

    In a voxel that changes from label a to label b, the probability of a becomes part of that of b. The same holds for
    unchanged voxels of other labels up to `rim_mm` from it if a is an organ, whose rim would otherwise remain, and in
    the whole volume for an organ that the map `after` lacks.
    """
    result = probabilities.astype(np.float32)
    changed = before != after
    if not changed.any():
        return probabilities.copy()
    distance, nearest = distance_transform_edt(~changed, sampling=spacing, return_indices=True)
    nearest = tuple(nearest)
    source, target = before[nearest], after[nearest]
    moved = changed | ((distance <= rim_mm) & (source > 0) & (before != source))
    for a in np.unique(source[moved]):
        for b in np.unique(target[moved & (source == a)]):
            where = moved & (source == a) & (target == b)
            result[b][where] += result[a][where]
            result[a][where] = 0
    for value in set(present_labels(before)) - set(present_labels(after)):
        result[0] += result[value]
        result[value] = 0
    return result.astype(np.float16)


def _chosen(labels: Labels, value: int | None, rng: np.random.Generator, *, exclude: int | None = None) -> int:
    """The given label, or a random one of the map; 0 where there is none."""
    if value is not None:
        return value
    present = [v for v in present_labels(labels) if v != exclude]
    return present[rng.integers(len(present))] if present else 0


def _distance_to_point(shape: tuple[int, ...], point: NDArray[np.intp], spacing: Spacing) -> NDArray[np.float64]:
    """Distance (z, y, x) in mm from a voxel."""
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    squares = [((axis - p) * step) ** 2 for axis, p, step in zip(axes, point, spacing, strict=True)]
    distance: NDArray[np.float64] = np.sqrt(squares[0] + squares[1] + squares[2])
    return distance
