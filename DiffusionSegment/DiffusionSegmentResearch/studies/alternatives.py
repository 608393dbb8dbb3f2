"""`study alternatives`: what the best alternative of each region to review would gain, chosen by the truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from DiffusionSegmentBackend.imaging.balls import Spacing
from DiffusionSegmentBackend.imaging.volume import Box
from DiffusionSegmentBackend.metrics.diversity import jittered_copies, mask_dice
from DiffusionSegmentBackend.metrics.overlap import LabelCounts, count_labels
from DiffusionSegmentBackend.models.manifest import ModelDescription
from DiffusionSegmentBackend.pipeline.interactive.region_alternatives import (
    MAX_ALTERNATIVES,
    RegionMaps,
    competing_pairs,
    region_hypotheses,
)
from DiffusionSegmentBackend.pipeline.review import regions_to_review
from numpy.typing import NDArray
from scipy import ndimage

from .bakeoff_data import FOLDS, read_setup
from .out_of_fold_maps import OutOfFoldMap, out_of_fold_maps
from .result_file import StudyDescription, StudyResult, StudyRow
from .study import StudyRequest

_PRODUCT = "alternatives"
_CONTROL = "jittered boundary"
_PERFECT = "the truth"
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class _Region:
    """A region to review: its maps in a box, the truth there, and its alternatives by method."""

    box: Box
    maps: RegionMaps
    truth: Labels
    alternatives: Mapping[str, Sequence[Labels]]


def study(request: StudyRequest) -> StudyResult:
    """Alternatives of the regions of the held-out cases of one fold of a bake-off."""
    setup = read_setup(request)
    maps = list(out_of_fold_maps(setup))
    description = StudyDescription(
        order=55,
        title="Alternatives of a region",
        question="Is one of the alternatives of a region better than what is shown?",
        protocol=f"Fold {setup.fold} of {FOLDS} of the bake-off: {len(maps)} cases that the network (3 mm, control "
        "arm) has not seen, on its grid. In each region to review the best of at most four alternatives and of the "
        "present labels, chosen by the truth. Gain of the case: mean Dice of its organs after all choices less that "
        "before. Gain of a region: the same of the labels inside the region alone. Control: the boundary "
        "of the first label of the region moved by smooth random fields, with the spread of the alternatives.",
        budget="none beyond the bake-off",
    )
    return StudyResult(alternative_rows(maps, request.description, seed=request.seed), description)


def alternative_rows(maps: Sequence[OutOfFoldMap], description: ModelDescription, *, seed: int) -> list[StudyRow]:
    """A row per method, averaged over cases and over regions; gains are in points of Dice."""
    rng = np.random.default_rng(seed)
    of_case: dict[str, list[float]] = {}
    of_region: dict[str, list[float]] = {}
    counts: dict[str, list[int]] = {}
    for item in maps:
        regions = list(_regions(item, description, rng))
        labels = item.probabilities.argmax(axis=0).astype(np.uint8)
        before = count_labels(labels, item.truth, description.classes)
        for name in (_PRODUCT, _CONTROL, _PERFECT):
            after = before
            for region in regions:
                after, gain = _best_choice(after, region, name, description.classes)
                of_region.setdefault(name, []).append(gain)
                counts.setdefault(name, []).append(len(region.alternatives[name]))
            of_case.setdefault(name, []).append(100 * (_mean_dice(after) - _mean_dice(before)))
    return [
        StudyRow(
            name,
            numbers={
                "gain of the case": round(float(np.mean(of_case[name])), 2),
                "median gain of the case": round(float(np.median(of_case[name])), 2),
                "gain of a region": round(float(np.mean(of_region[name])), 2),
                "alternatives of a region": round(float(np.mean(counts[name])), 2),
            },
        )
        for name in of_case
    ]


def _regions(item: OutOfFoldMap, description: ModelDescription, rng: np.random.Generator) -> Iterable[_Region]:
    review, numbers = regions_to_review(item.probabilities, item.grid, item.offset, description)
    boxes = ndimage.find_objects(numbers)
    for number in range(1, len(review) + 1):
        box = boxes[number - 1]
        probabilities = item.probabilities[(slice(None), *box)]
        maps = RegionMaps(
            probabilities=probabilities,
            labels=probabilities.argmax(axis=0).astype(np.uint8),
            inside=numbers[box] == number,
        )
        truth = item.truth[box]
        alternatives = [h.labels for h in region_hypotheses(maps, voxel_ml=item.grid.voxel_ml)]
        yield _Region(
            box,
            maps,
            truth,
            {
                _PRODUCT: alternatives,
                _CONTROL: _jittered(maps, alternatives, item.spacing, rng),
                _PERFECT: [np.where(maps.inside, truth, maps.labels)],
            },
        )


def _jittered(
    maps: RegionMaps, alternatives: Sequence[Labels], spacing: Spacing, rng: np.random.Generator
) -> list[Labels]:
    """Random moves of the boundary between the main pair of labels, with the spread of the alternatives."""
    pairs = competing_pairs(maps)
    if not pairs or not alternatives:
        return []
    first, second = pairs[0]
    masks = [labels == first for labels in (maps.labels, *alternatives)]
    spread = float(np.mean([1 - mask_dice(a, b) for a, b in combinations(masks, 2)]))
    copies = jittered_copies(masks[0], spacing, count=MAX_ALTERNATIVES, spread=spread, rng=rng)
    return [
        np.where(
            maps.inside & copy & ~masks[0], first, np.where(maps.inside & ~copy & masks[0], second, maps.labels)
        ).astype(np.uint8)
        for copy in copies
    ]


def _best_choice(before: LabelCounts, region: _Region, name: str, classes: int) -> tuple[LabelCounts, float]:
    """Counts of the case after the best choice, and the gain of the region in points of Dice."""
    inside = region.maps.inside
    present = count_labels(region.maps.labels[inside], region.truth[inside], classes)
    best, gain = before, 0.0
    for labels in region.alternatives[name]:
        local = count_labels(labels[inside], region.truth[inside], classes)
        after = LabelCounts(
            before.predicted + local.predicted - present.predicted,
            before.truth,
            before.both + local.both - present.both,
        )
        if _mean_dice(after) > _mean_dice(best):
            best, gain = after, 100 * (_mean_dice(local) - _mean_dice(present))
    return best, gain


def _mean_dice(counts: LabelCounts) -> float:
    """Mean over the organs of the truth; 0 where there are none."""
    return float(np.nanmean(counts.dice)) if (counts.truth > 0).any() else 0.0
