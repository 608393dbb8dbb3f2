"""Simulated user corrections of a label map: clicks, scribbles and painted slices on the largest errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

STROKES = ("click", "scribble", "slice")
_CLICK_RADIUS = 1.5
_CANDIDATES = 5


@dataclass(frozen=True)
class Stroke:
    """The voxels (z, y, x) that a stroke covers, a bool mask, and the label that it assigns."""

    voxels: NDArray[np.bool_]
    label: int


def largest_errors(
    predicted: NDArray[np.integer], truth: NDArray[np.integer], *, count: int
) -> list[NDArray[np.bool_]]:
    """Masks of the largest connected errors, largest first; each has one predicted and one true label."""
    wrong = predicted != truth
    pair = np.where(wrong, predicted.astype(np.int32) * 256 + truth + 1, 0)
    codes, numbered = np.unique(pair, return_inverse=True)
    components_by_size = []
    for number, box in enumerate(ndimage.find_objects(numbered.reshape(pair.shape)), start=1):
        if box is None or codes[number] == 0:
            continue
        components, _ = ndimage.label(pair[box] == codes[number])
        sizes = np.bincount(components.ravel())[1:]
        components_by_size += [(int(sizes[n]), box, components == n + 1) for n in np.argsort(-sizes)[:count]]
    masks = []
    for _, box, inside in sorted(components_by_size, key=lambda item: -item[0])[:count]:
        mask = np.zeros(pair.shape, dtype=bool)
        mask[box] = inside
        masks.append(mask)
    return masks


def stroke_on(
    error: NDArray[np.bool_],
    truth: NDArray[np.integer],
    *,
    kind: str,
    generator: np.random.Generator,
    brush: float = 1.0,
) -> Stroke:
    """A stroke on an error, inside the region whose true label it assigns.

    Args:
        error: Mask of a connected error.
        truth: The true label map.
        kind: "click", a small ball at the deepest voxel of the error; "scribble", a line from there to a distant voxel
            of the error in the same axial slice; "slice", all voxels of the error in that slice.
        generator: Chooses the end of a scribble.
        brush: Radius of a scribble in voxels.
    """
    core = _core(error)
    label = int(truth[core])
    in_slice = np.argwhere(error[core[0]])
    if kind == "slice":
        voxels = np.zeros_like(error)
        voxels[core[0]] = error[core[0]]
        return Stroke(voxels, label)
    ends = [np.array(core, dtype=float)]
    if kind == "scribble":
        far = np.argsort(-((in_slice - np.array(core[1:])) ** 2).sum(axis=1))[: max(1, len(in_slice) // 4)]
        y, x = in_slice[int(generator.choice(far))]
        ends.append(np.array([core[0], y, x], dtype=float))
    radius = brush * (_CLICK_RADIUS if kind == "click" else 1.0)
    return Stroke(_tube(ends, radius, error.shape) & (truth == label), label)


def random_stroke(
    predicted: NDArray[np.integer], truth: NDArray[np.integer], generator: np.random.Generator
) -> Stroke | None:
    """A stroke of a random kind on one of the largest errors, chosen by volume; None without an error."""
    errors = largest_errors(predicted, truth, count=_CANDIDATES)
    if not errors:
        return None
    sizes = np.array([np.count_nonzero(mask) for mask in errors], dtype=float)
    chosen = errors[int(generator.choice(len(errors), p=sizes / sizes.sum()))]
    return stroke_on(chosen, truth, kind=str(generator.choice(STROKES)), generator=generator)


def _core(mask: NDArray[np.bool_]) -> tuple[int, int, int]:
    """The voxel of the mask with the largest distance to its border."""
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    depth = ndimage.distance_transform_edt(np.pad(mask[box], 1))[1:-1, 1:-1, 1:-1]
    deepest = np.unravel_index(int(np.argmax(depth)), depth.shape)
    z, y, x = (int(p) + s.start for p, s in zip(deepest, box, strict=True))
    return z, y, x


def _tube(points: list[NDArray[np.float64]], radius: float, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Voxels within `radius` of the line from the first to the last point."""
    inside = np.zeros(shape, dtype=bool)
    first, last = points[0], points[-1]
    length = int(np.ceil(np.abs(last - first).max())) + 1
    reach = int(np.ceil(radius))
    offsets = np.argwhere(np.ones((2 * reach + 1,) * 3)) - reach
    offsets = offsets[(offsets**2).sum(axis=1) <= radius**2]
    line = np.unique(np.round(np.linspace(first, last, length)).astype(int), axis=0)
    voxels = (line[:, None] + offsets[None]).reshape(-1, 3)
    voxels = voxels[((voxels >= 0) & (voxels < np.array(shape))).all(axis=1)]
    inside[tuple(voxels.T)] = True
    return inside
