"""`study regions`: how much of the gross errors a reader sees who follows a list of regions to review."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from DiffusionSegmentBackend.imaging.balls import Spacing, Voxel, largest_balls
from DiffusionSegmentBackend.metrics.looks import LOOK_RADIUS_MM, Looks, gross_errors, look
from DiffusionSegmentBackend.models.manifest import ModelDescription
from DiffusionSegmentBackend.pipeline.review import MAX_REGIONS, ErrorMap, error_map, regions_to_review
from numpy.typing import NDArray
from scipy import ndimage

from .bakeoff_data import FOLDS, read_setup
from .out_of_fold_maps import OutOfFoldMap, out_of_fold_maps
from .result_file import StudyDescription, StudyResult, StudyRow
from .reviewed_errors import reviewed_rows
from .study import StudyRequest

_PRODUCT = "regions to review"
_COUNTS = (1, 3, 5, 10)


def study(request: StudyRequest) -> StudyResult:
    """Lists and reviews of the held-out cases of one fold of a bake-off."""
    setup = read_setup(request)
    maps = list(out_of_fold_maps(setup))
    description = StudyDescription(
        order=54,
        title="Where to look",
        question="Does the list of regions to review lead to the mistakes?",
        protocol=f"Fold {setup.fold} of {FOLDS} of the bake-off: {len(maps)} cases that the network (3 mm, control "
        "arm) has not seen, on its grid. A gross error is a connected piece of wrong voxels of at least 0.3 mL that "
        "survives an opening by 3 mm; a look is a ball of 20 mm. Recall at k: gross-error volume in the first k looks, "
        "as a share of what the best k looks could hold. Looks with a gross error: at least 0.1 mL of one. Below, the "
        "same network reviews the expert label maps: as they are, and with errors of the scale of organs; an error is "
        "listed if one of the regions holds it or an alarm names its organ.",
        budget="none beyond the bake-off",
    )
    return StudyResult(
        [*list_rows(maps, request.description, seed=request.seed), *reviewed_rows(maps, request.description)],
        description,
    )


def list_rows(maps: Sequence[OutOfFoldMap], description: ModelDescription, *, seed: int) -> list[StudyRow]:
    """A row per list, averaged over cases."""
    measured: dict[str, list[tuple[Looks, float]]] = {}
    for item in maps:
        errors = error_map(item.probabilities)
        truth = gross_errors(errors.labels, item.truth, spacing=item.spacing)
        lists = {
            _PRODUCT: _product(item, description),
            "uncertain rims, as in 0.1.0": _connected_pieces(errors, item.spacing),
            "largest sum of entropy": _by_entropy(item),
            "largest organ first": _largest_organs(errors.labels),
            "random points of surfaces": _random_surface(errors.labels, seed=seed),
            "the truth": (_balls((truth > 0).astype(np.float32), item.spacing), 2 * LOOK_RADIUS_MM),
        }
        for name, (positions, widest) in lists.items():
            measured.setdefault(name, []).append((look(truth, positions, spacing=item.spacing), widest))
    return [_row(name, results) for name, results in measured.items()]


def _row(name: str, results: Sequence[tuple[Looks, float]]) -> StudyRow:
    numbers = {
        f"recall at {k}": round(float(np.nanmean([looks.recall(k) for looks, _ in results])), 3) for k in _COUNTS
    }
    numbers["looks with a gross error"] = round(float(np.mean([hit for looks, _ in results for hit in looks.holds])), 3)
    numbers["widest, mm"] = round(max(widest for _, widest in results))
    return StudyRow(name, numbers=numbers)


def _product(item: OutOfFoldMap, description: ModelDescription) -> tuple[list[Voxel], float]:
    """Shown voxels of the regions of the program, and the width of the widest in mm."""
    regions, numbers = regions_to_review(item.probabilities, item.grid, item.offset, description)
    return item.voxels_of(regions), max(
        (_width(numbers == n + 1, item.spacing) for n in range(len(regions))), default=0.0
    )


def _connected_pieces(errors: ErrorMap, spacing: Spacing) -> tuple[list[Voxel], float]:
    """Connected voxels of one pair of labels with an error above 0.2, by expected error: the list of version 0.1.0."""
    pairs = np.maximum(errors.labels, errors.competing).astype(np.int32) * 256
    pairs += np.minimum(errors.labels, errors.competing)
    pairs[errors.probability <= 0.2] = 0
    pieces: list[tuple[float, Voxel, float]] = []
    for pair in np.unique(pairs[pairs > 0]):
        components, _ = ndimage.label(pairs == pair)
        for number, box in enumerate(ndimage.find_objects(components), start=1):
            mask = components[box] == number
            voxels = np.argwhere(mask)
            z, y, x = (voxels[((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1).argmin()]) + [s.start for s in box]
            score = float(errors.probability[box][mask].sum())
            pieces.append((score, (int(z), int(y), int(x)), _width(mask, spacing)))
    chosen = sorted(pieces, reverse=True)[:MAX_REGIONS]
    return [voxel for _, voxel, _ in chosen], max((width for *_, width in chosen), default=0.0)


def _by_entropy(item: OutOfFoldMap) -> tuple[list[Voxel], float]:
    p = item.probabilities
    return _balls(-(p * np.log(np.maximum(p, 1e-6))).sum(axis=0), item.spacing), 2 * LOOK_RADIUS_MM


def _largest_organs(labels: NDArray[np.uint8]) -> tuple[list[Voxel], float]:
    """A voxel near the centre of each organ, the largest organ first."""
    sizes = np.bincount(labels.ravel())
    values = [int(v) for v in np.argsort(-sizes) if v and sizes[v]][:MAX_REGIONS]
    positions = []
    for value in values:
        voxels = np.argwhere(labels == value)
        z, y, x = voxels[((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1).argmin()]
        positions.append((int(z), int(y), int(x)))
    return positions, 2 * LOOK_RADIUS_MM


def _random_surface(labels: NDArray[np.uint8], *, seed: int) -> tuple[list[Voxel], float]:
    organs = labels > 0
    surface = np.argwhere(organs & ~ndimage.binary_erosion(organs))
    chosen = np.random.default_rng(seed).choice(surface, MAX_REGIONS, replace=False)
    return [(int(z), int(y), int(x)) for z, y, x in chosen], 2 * LOOK_RADIUS_MM


def _balls(values: NDArray[np.float32], spacing: Spacing) -> list[Voxel]:
    balls = largest_balls(
        values.astype(np.float32), count=MAX_REGIONS, min_sum=1e-3, radius_mm=LOOK_RADIUS_MM, spacing=spacing
    )
    return [ball.centre for ball in balls]


def _width(mask: NDArray[np.bool_], spacing: Spacing) -> float:
    """Largest extent in mm of a mask along an axis."""
    return float(((np.ptp(np.argwhere(mask), axis=0) + 1) * spacing).max())
