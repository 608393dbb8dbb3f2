"""Calibration of reviews: how probably a label of a reviewed segmentation is wrong, and a region holds a gross error.

The model has to be as wrong as on new scans, and knows those of its training. So it sees their images degraded until
its Dice is the one that was measured on its validation cases. It reviews three kinds of segmentations, each a third of
the examples: the expert's label map; that with one simulated error; and a weak one, what the model finds in an image
that is degraded otherwise. Half of the reviews are of one to three organs, half of all. The probabilities hold where
reviewed segmentations are such a mixture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ..datasets.label_errors import present_labels
from ..datasets.labelled_cases import Case
from ..errors import DiffusionSegmentError, ErrorCode
from ..metrics.looks import gross_errors
from ..models.manifest import ModelDescription
from ..models.model import Model, load_model, write_description
from ..pipeline.review import MAX_REGIONS, ErrorMap
from ..pipeline.reviewed_error import calibrated_error, reviewed_error_features
from ..pipeline.segment import keep_organs
from ..schema import dataclass_json
from ..schema.region_probability import LogisticModel, RegionProbability
from ..schema.reviewed_error import REVIEWED_ERROR_FEATURES, ReviewedErrorModel
from .degraded_scans import degraded_prediction, prediction_with_dice
from .logistic import fit_logistic
from .region_calibration import (
    MAX_THRESHOLD,
    MIN_SCANS,
    LabelledPrediction,
    RegionExample,
    fit_region_model,
    region_examples,
    simulated_errors,
)
from .session import add_coordinates, load_cases

EXPERT, ERROR, WEAK = "expert", "error", "weak"
# Simulated errors of every kind in each scan.
_ERRORS_OF_KIND = 2
# Organs of a review of a few.
_MOST_ORGANS = 3
_VOXELS_A_LABEL_MAP = 5000
# Voxels with less doubt are not examples.
_MIN_ERROR = 0.02
_DIGITS = 4


@dataclass(frozen=True, kw_only=True)
class ReviewedLabelMap:
    """A segmentation to review and what the model says of it; arrays (z, y, x).

    Attributes:
        kind: EXPERT, ERROR or WEAK.
        name: among the label maps of the scan.
        labels: the segmentation, of the organs that are reviewed.
        truth: the expert's label map of these organs.
        competing: the model's label, where it is another one.
        error: 1 - p_model(given label).
        own_error: sum of 1 - p_model of the model's own label.
        share: weight of the label map among all, so that the kinds count as much as each other.
    """

    kind: str
    name: str
    labels: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    competing: NDArray[np.uint8]
    error: NDArray[np.float32]
    own_error: float
    share: float


@dataclass(frozen=True, kw_only=True)
class ReviewedScan:
    """What the model predicts for a degraded scan, and what it finds in the scan degraded otherwise."""

    prediction: LabelledPrediction
    weak: NDArray[np.uint8]

    def label_maps(self, description: ModelDescription, *, seed: int) -> Iterator[ReviewedLabelMap]:
        """The segmentations of this scan, one at a time, each with all organs or, every other one, with a few."""
        truth, rng = self.prediction.truth, np.random.default_rng(seed)
        probabilities = torch.from_numpy(self.prediction.probabilities.astype(np.float32))
        errors = [
            item
            for n in range(_ERRORS_OF_KIND)
            for item in simulated_errors(self.prediction, description, seed=seed * _ERRORS_OF_KIND + n)
        ]
        maps = [(EXPERT, EXPERT, truth)] * 2 + [(WEAK, WEAK, self.weak)] * 2
        maps += [(ERROR, f"{name} {n}", labels) for n, (name, labels) in enumerate(errors)]
        counts = Counter(kind for kind, _, _ in maps)
        for number, (kind, name, labels) in enumerate(maps):
            organs = _few_organs(labels, truth, rng) if number % 2 else None
            # Voxels of other organs are background, also for the model.
            shown = labels if organs is None else np.where(np.isin(labels, organs), labels, np.uint8(0))
            expected = truth if organs is None else np.where(np.isin(truth, organs), truth, np.uint8(0))
            kept = keep_organs(probabilities, organs or []).numpy()
            yield ReviewedLabelMap(
                kind=kind,
                name=name if organs is None else f"{name} of {len(organs)} organs",
                labels=shown,
                truth=expected,
                competing=kept.argmax(axis=0).astype(np.uint8),
                error=1 - np.take_along_axis(kept, shown[None].astype(np.intp), axis=0)[0],
                own_error=float((1 - kept.max(axis=0)).sum(dtype=np.float64)),
                share=1 / counts[kind],
            )


def _few_organs(labels: NDArray[np.uint8], truth: NDArray[np.uint8], rng: np.random.Generator) -> list[int]:
    """One to three random organs of a label map, among them one that is wrong, if any is."""
    present = present_labels(truth)
    wrong = sorted({*np.unique(labels[labels != truth]), *np.unique(truth[labels != truth])} - {0})
    first = int(rng.choice(wrong or present))
    others = rng.permutation([value for value in present if value != first])[: rng.integers(_MOST_ORGANS)]
    return [first, *map(int, others)]


def calibrate_reviews(
    folder: Path, data: Sequence[Path], *, part: str = "train", device: str = "auto", seed: int = 0
) -> tuple[ReviewedErrorModel, LogisticModel | None]:
    """Calibrate the reviews of a model on labelled cases, by default those of its training; stored in its model.json.

    Raises:
        DiffusionSegmentError: TRAINING_DATA for fewer than five cases with all organs drawn, or a model whose quality
            was not measured.
    """
    model = load_model(str(folder), device)
    description = model.description
    organs = {label.value for label in description.labels}
    cases = [case for case in load_cases(data, description, part=part) if case.drawn is None or organs <= case.drawn]
    dice = None if description.quality is None else description.quality.result_dice
    if len(cases) < MIN_SCANS or dice is None:
        what = "Its quality was not measured" if dice is None else f"{len(cases)} cases have all organs drawn"
        raise DiffusionSegmentError(
            ErrorCode.TRAINING_DATA,
            f"The reviews of {description.name} cannot be calibrated: {what}.",
            hint="Enter its mean Dice as `quality` in model.json." if dice is None else f"Give {MIN_SCANS} or more.",
        )
    add_coordinates(cases, model.bodypart)
    scans = [
        reviewed_scan(case, model, dice, seed=seed + number) for number, case in enumerate(tqdm(cases, desc="reviews"))
    ]
    error, regions = fit_reviews(scans, description, seed=seed)
    kept = description.region_probability or RegionProbability()
    raw = {**description.raw, "reviewed_error": dataclass_json.to_json(error)}
    raw["region_probability"] = dataclass_json.to_json(replace(kept, reviewed=regions))
    write_description(description.folder, raw)
    return error, regions


def reviewed_scan(case: Case, model: Model, dice: float, *, seed: int) -> ReviewedScan:
    """A case with body coordinates, on the model's grid, degraded twice."""
    x, y, z = case.grid.spacing
    probabilities = prediction_with_dice(case, model, dice, seed=seed).half().numpy()
    prediction = LabelledPrediction(
        name=case.name, probabilities=probabilities, truth=np.asarray(case.labels), spacing=(z, y, x)
    )
    weak = degraded_prediction(case, model, np.random.default_rng((seed, 1)))
    return ReviewedScan(prediction=prediction, weak=weak)


def fit_reviews(
    scans: Sequence[ReviewedScan], description: ModelDescription, *, seed: int
) -> tuple[ReviewedErrorModel, LogisticModel | None]:
    """The model of voxels, and with it the model of regions, None where the label maps hold too few gross errors.

    A region is listed if it more probably than not holds a gross error, so that a good segmentation has an empty list.
    """
    error = fit_voxels(scans, description, seed=seed)
    examples = [example for n, scan in enumerate(scans) for example in _regions(scan, error, description, seed + n)]
    regions = fit_region_model(examples)
    return error, None if regions is None else replace(regions, threshold=MAX_THRESHOLD)


def fit_voxels(scans: Sequence[ReviewedScan], description: ModelDescription, *, seed: int) -> ReviewedErrorModel:
    """The model of the probability that a given label is wrong."""
    rng = np.random.default_rng(seed)
    features, wrong, weights = [], [], []
    for number, scan in enumerate(tqdm(scans, desc="voxels")):
        for item in scan.label_maps(description, seed=seed + number):
            found = np.flatnonzero((item.error > _MIN_ERROR) | (item.labels != item.truth))
            chosen = rng.choice(found, min(len(found), _VOXELS_A_LABEL_MAP), replace=False)
            every = reviewed_error_features(item.error, item.own_error, spacing=scan.prediction.spacing)
            columns = [
                np.broadcast_to(every[name], item.error.shape).ravel()[chosen] for name in REVIEWED_ERROR_FEATURES
            ]
            features.append(np.column_stack(columns))
            wrong.append((item.labels != item.truth).ravel()[chosen])
            weights.append(np.full(len(chosen), item.share * len(found) / max(1, len(chosen))))
    every_wrong = np.concatenate(wrong).astype(np.float64)
    intercept, slopes = fit_logistic(np.concatenate(features), every_wrong, np.concatenate(weights))
    return ReviewedErrorModel(
        intercept=round(intercept, _DIGITS),
        weights={n: round(float(slope), _DIGITS) for n, slope in zip(REVIEWED_ERROR_FEATURES, slopes, strict=True)},
        scans=len(scans),
    )


def _regions(
    scan: ReviewedScan, model: ReviewedErrorModel, description: ModelDescription, seed: int
) -> Iterator[RegionExample]:
    """The regions of the label maps of a scan."""
    prediction = scan.prediction
    for item in scan.label_maps(description, seed=seed):
        probability = calibrated_error(item.error, item.own_error, model, spacing=prediction.spacing)
        errors = ErrorMap(item.labels, item.competing, probability, item.own_error)
        gross = gross_errors(item.labels, item.truth, spacing=prediction.spacing)
        for example in region_examples(prediction, item.name, errors, gross, count=MAX_REGIONS):
            yield replace(example, weight=item.share)
