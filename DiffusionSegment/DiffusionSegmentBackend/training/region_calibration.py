"""Calibration of the probability that a region to review holds a gross error, on out-of-fold predictions.

A logistic model of three features of a region (Platt 1999 with features instead of a score), with a small ridge because
scans are few. There are two: one for the regions of a model's own results, and one for those of reviewed segmentations,
which is fitted on expert label maps, a third of them as they are and the others with one simulated error. Its
probabilities hold where errors are as frequent as in these label maps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..datasets.label_errors import delete_organ, leak, lose_slab, present_labels, swap_sides
from ..imaging.balls import Spacing
from ..metrics.looks import MIN_GROSS_ERROR_ML, gross_errors
from ..models.manifest import ModelDescription
from ..pipeline.review import MAX_CANDIDATES, MAX_REGIONS, ErrorMap, review_candidates
from ..schema.region_probability import REGION_FEATURES, LogisticModel, RegionProbability
from .logistic import fit_logistic

# Share of the regions with a gross error that the threshold keeps in the list.
MIN_KEPT = 0.95
# A region that more probably than not holds a gross error is listed.
MAX_THRESHOLD = 0.5
MIN_SCANS, _MIN_OF_EACH = 5, 10
_ERRORS_PER_SCAN = 2


@dataclass(frozen=True, kw_only=True)
class LabelledPrediction:
    """Out-of-fold probabilities (classes, z, y, x) of a scan with its label map `truth` (z, y, x).

    `spacing` is in mm along z, y, x; all organs of the scan are annotated.
    """

    name: str
    probabilities: NDArray[np.float32]
    truth: NDArray[np.uint8]
    spacing: Spacing

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel."""
        return float(np.prod(self.spacing)) / 1000.0


@dataclass(frozen=True, kw_only=True)
class RegionExample:
    """A region with a known answer: features in the order of REGION_FEATURES, and whether it holds a gross error.

    `label_map` names the label map among those of the scan; `rank` is the region's in its list, from 0; `weight` is
    that of the example in the fit.
    """

    scan: str
    label_map: str
    rank: int
    features: tuple[float, ...]
    gross: bool
    weight: float = 1.0


def own_examples(prediction: LabelledPrediction) -> list[RegionExample]:
    """Up to 30 regions of the model's own segmentation of a scan."""
    best, second = _best_two(prediction.probabilities)
    return _examples(prediction, "own", best, best, second, count=MAX_CANDIDATES)


def reviewed_examples(
    prediction: LabelledPrediction, description: ModelDescription, *, seed: int
) -> list[RegionExample]:
    """Regions of the expert's label map and of two label maps with a simulated error of random kind each."""
    best, second = _best_two(prediction.probabilities)
    label_maps = {"expert": prediction.truth}
    kinds = list(simulated_errors(prediction, description, seed=seed))
    chosen = np.random.default_rng(seed).permutation(len(kinds))[:_ERRORS_PER_SCAN]
    label_maps |= dict(kinds[n] for n in sorted(chosen))
    return [
        example
        for name, labels in label_maps.items()
        for example in _examples(prediction, name, labels, best, second, count=MAX_REGIONS)
    ]


def simulated_errors(
    prediction: LabelledPrediction, description: ModelDescription, *, seed: int
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Name and label map of an error of every kind that the scan can have."""
    truth, spacing, rng = prediction.truth, prediction.spacing, np.random.default_rng(seed)
    present = present_labels(truth)
    values = {label.name: label.value for label in description.labels if label.value in present}
    pairs = [(v, values[left]) for n, v in values.items() if (left := n.replace("right_", "left_", 1)) in values]
    pairs = [(right, left) for right, left in pairs if right != left]
    if not present:
        return
    yield "deleted", delete_organ(truth, spacing, rng)
    yield "cut off", lose_slab(truth, spacing, rng)
    yield "leaked", leak(truth, spacing, rng)
    if pairs:
        yield "swapped", swap_sides(truth, spacing, rng, pairs=pairs)


def _best_two(probabilities: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The most and the second most probable label of every voxel."""
    best = probabilities.argmax(axis=0)
    others = probabilities.copy()
    np.put_along_axis(others, best[None], -1.0, axis=0)
    return best.astype(np.uint8), others.argmax(axis=0).astype(np.uint8)


def _examples(
    prediction: LabelledPrediction,
    name: str,
    labels: NDArray[np.uint8],
    best: NDArray[np.uint8],
    second: NDArray[np.uint8],
    *,
    count: int,
) -> list[RegionExample]:
    given = np.take_along_axis(prediction.probabilities, labels[None].astype(np.intp), axis=0)[0]
    errors = ErrorMap(labels, np.where(best == labels, second, best), 1 - given)
    gross = gross_errors(labels, prediction.truth, spacing=prediction.spacing)
    return region_examples(prediction, name, errors, gross, count=count)


def region_examples(
    prediction: LabelledPrediction, name: str, errors: ErrorMap, gross: NDArray[np.int32], *, count: int
) -> list[RegionExample]:
    """Up to `count` regions of the label map `name` of a scan, of which the gross errors are known."""
    candidates = review_candidates(errors, voxel_ml=prediction.voxel_ml, spacing=prediction.spacing, count=count)
    return [
        RegionExample(
            scan=prediction.name,
            label_map=name,
            rank=rank,
            features=tuple(candidate.features[feature] for feature in REGION_FEATURES),
            gross=bool(
                np.count_nonzero((gross[candidate.ball.box] > 0) & candidate.inside) * prediction.voxel_ml
                >= MIN_GROSS_ERROR_ML
            ),
        )
        for rank, candidate in enumerate(candidates)
    ]


def calibrate_regions(own: Sequence[RegionExample], reviewed: Sequence[RegionExample]) -> RegionProbability | None:
    """Both models, None where neither can be fitted."""
    models = RegionProbability(own=fit_region_model(own), reviewed=fit_region_model(reviewed))
    return None if models == RegionProbability() else models


def fit_region_model(examples: Sequence[RegionExample]) -> LogisticModel | None:
    """The logistic model of the examples, with a threshold that is chosen out of fold.

    The threshold is the highest one below which at most 5 % of the regions with a gross error lie, by the probabilities
    of `out_of_fold_probabilities`, and at most 0.5. None for examples of fewer than five scans, or with fewer than ten
    regions with or without a gross error.
    """
    scans = {example.scan for example in examples}
    if len(scans) < MIN_SCANS or not _has_both(examples):
        return None
    probabilities = out_of_fold_probabilities(examples)
    of_gross = np.sort(probabilities[[example.gross for example in examples]])
    threshold = min(MAX_THRESHOLD, float(of_gross[int((1 - MIN_KEPT) * len(of_gross))]))
    model = _fit(examples)
    return replace(model, threshold=round(threshold, 4), scans=len(scans), regions=len(examples))


def out_of_fold_probabilities(examples: Sequence[RegionExample]) -> NDArray[np.float64]:
    """For every example the probability of a model that was fitted without its scan."""
    result = np.empty(len(examples))
    for scan in {example.scan for example in examples}:
        model = _fit([example for example in examples if example.scan != scan])
        for n, example in enumerate(examples):
            if example.scan == scan:
                result[n] = model.probability(dict(zip(REGION_FEATURES, example.features, strict=True)))
    return result


def _has_both(examples: Sequence[RegionExample]) -> bool:
    gross = sum(example.gross for example in examples)
    return min(gross, len(examples) - gross) >= _MIN_OF_EACH


def _fit(examples: Sequence[RegionExample]) -> LogisticModel:
    features = np.array([example.features for example in examples])
    gross = np.array([example.gross for example in examples], dtype=np.float64)
    weights = np.array([example.weight for example in examples])
    intercept, slopes = fit_logistic(features, gross, weights)
    return LogisticModel(
        intercept=round(intercept, 6),
        weights={name: round(float(slope), 6) for name, slope in zip(REGION_FEATURES, slopes, strict=True)},
    )
