"""`study region-probability`: reliability of the probability of regions to review, and margins of organs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from DiffusionSegmentBackend.metrics.looks import gross_errors, look
from DiffusionSegmentBackend.models.manifest import ModelDescription
from DiffusionSegmentBackend.pipeline.review import regions_to_review
from DiffusionSegmentBackend.schema.region_probability import LogisticModel, RegionProbability
from DiffusionSegmentBackend.training.organ_margins import conformal_margin, containing_dilations_mm
from DiffusionSegmentBackend.training.region_calibration import (
    LabelledPrediction,
    RegionExample,
    calibrate_regions,
    fit_region_model,
    out_of_fold_probabilities,
    own_examples,
    reviewed_examples,
)
from numpy.typing import NDArray

from .bakeoff_data import FOLDS, read_setup
from .out_of_fold_maps import OutOfFoldMap, out_of_fold_maps
from .result_file import StudyDescription, StudyResult, StudyRow
from .reviewed_errors import reviewed_regions
from .study import StudyRequest

_BINS = 4
_DRAWS = 1000
# Eight scans are too few for a margin at 90 %.
_COVERAGE = 0.8


def study(request: StudyRequest) -> StudyResult:
    """Calibration on the held-out cases of one fold of a bake-off, measured by leaving one scan out."""
    setup = read_setup(request)
    maps = list(out_of_fold_maps(setup))
    description = StudyDescription(
        order=55,
        title="How certain is a region",
        question="Do regions that are said to hold a gross error with a probability of 60 % hold one in 60 %?",
        protocol=f"Fold {setup.fold} of {FOLDS} of the bake-off: {len(maps)} cases that the network (3 mm, control "
        "arm) has not seen, on its grid. A logistic model of three features of a region is fitted without the scan "
        "whose regions it judges. Own results: up to 30 regions a scan. Reviewed label maps: those of the experts, as "
        "they are and with two simulated errors a scan. A region holds a gross error if at least 0.3 mL of one are "
        "among its voxels. Intervals: 90 %, bootstrap by scan. Lists: before, as without a calibration; after, without "
        "regions below the threshold, and with at most two regions of an organ up to a probability of 0.8. Margins: "
        f"smallest dilation that contains 99 % of the organ in {100 * _COVERAGE:.0f} % of scans.",
        budget="none beyond the bake-off",
    )
    rows = [
        *probability_rows(maps, request.description, seed=request.seed),
        *margin_rows(maps, request.description),
    ]
    return StudyResult(rows, description)


def probability_rows(maps: Sequence[OutOfFoldMap], description: ModelDescription, *, seed: int) -> list[StudyRow]:
    """Reliability and coefficients of both models, and lists before and after."""
    own, reviewed = examples_of(maps, description, seed=seed)
    rows = [
        *reliability_rows("own results", own, seed=seed),
        *reliability_rows("reviewed label maps", reviewed, seed=seed),
    ]
    fitted = calibrate_regions(own, reviewed) or RegionProbability()
    rows += [
        StudyRow(f"model of {name}", numbers=_coefficients(model))
        for name, model in (("own results", fitted.own), ("reviewed label maps", fitted.reviewed))
        if model is not None
    ]
    return [*rows, *list_rows_before_and_after(maps, description, own, reviewed)]


def examples_of(
    maps: Sequence[OutOfFoldMap], description: ModelDescription, *, seed: int
) -> tuple[list[RegionExample], list[RegionExample]]:
    """Examples of own results and of reviewed label maps."""
    own: list[RegionExample] = []
    reviewed: list[RegionExample] = []
    for number, item in enumerate(maps):
        prediction = LabelledPrediction(
            name=item.name, probabilities=item.probabilities, truth=item.truth, spacing=item.spacing
        )
        own += own_examples(prediction)
        reviewed += reviewed_examples(prediction, description, seed=seed + number)
    return own, reviewed


def _coefficients(model: LogisticModel) -> dict[str, float]:
    return {"intercept": model.intercept, **model.weights, "threshold": model.threshold, "regions": model.regions}


def reliability_rows(name: str, examples: Sequence[RegionExample], *, seed: int) -> list[StudyRow]:
    """A row for all regions and one for each of four bins with equally many, by probability."""
    if fit_region_model(examples) is None:
        return []
    probability = out_of_fold_probabilities(examples)
    gross = np.array([example.gross for example in examples], float)
    scans = np.array([example.scan for example in examples])
    # The score of the share of gross errors in the other scans: what a model without features would reach.
    constant = np.array([gross[scans != scan].mean() for scan in scans])
    score, low, high = _with_interval((probability - gross) ** 2, scans, seed=seed)
    numbers = {"regions": len(examples), "Brier": score, "Brier, low": low, "Brier, high": high}
    numbers["Brier of the mean"] = round(float(((constant - gross) ** 2).mean()), 3)
    rows = [StudyRow(name, numbers=numbers)]
    for number, chosen in enumerate(np.array_split(np.argsort(probability, kind="stable"), _BINS), start=1):
        share, low, high = _with_interval(gross[chosen], scans[chosen], seed=seed)
        bin_numbers = {"regions": len(chosen), "mean probability": round(float(probability[chosen].mean()), 3)}
        bin_numbers |= {"with a gross error": share, "low": low, "high": high}
        rows.append(StudyRow(f"{name}, bin {number}", numbers=bin_numbers))
    return rows


def _with_interval(values: NDArray[np.float64], scans: NDArray[np.str_], *, seed: int) -> tuple[float, float, float]:
    """The mean of values, and its 90 % interval when scans are drawn with replacement."""
    names = np.unique(scans)
    sums = np.array([values[scans == name].sum() for name in names])
    counts = np.array([np.count_nonzero(scans == name) for name in names])
    drawn = np.random.default_rng(seed).integers(len(names), size=(_DRAWS, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.05, 0.95))
    return round(float(values.mean()), 3), round(float(low), 3), round(float(high), 3)


def list_rows_before_and_after(
    maps: Sequence[OutOfFoldMap],
    description: ModelDescription,
    own: Sequence[RegionExample],
    reviewed: Sequence[RegionExample],
) -> list[StudyRow]:
    """What lists hold with and without a calibration that was fitted without their scan."""

    def without(examples: Sequence[RegionExample], scan: str) -> list[RegionExample]:
        return [example for example in examples if example.scan != scan]

    def after(item: OutOfFoldMap) -> ModelDescription:
        fitted = calibrate_regions(without(own, item.name), without(reviewed, item.name))
        return replace(description, region_probability=fitted)

    plain = replace(description, region_probability=None)
    return [_list_row("lists before", maps, lambda item: plain), _list_row("lists after", maps, after)]


def _list_row(name: str, maps: Sequence[OutOfFoldMap], model: Callable[[OutOfFoldMap], ModelDescription]) -> StudyRow:
    recalls: list[float] = []
    holds: list[bool] = []
    on_expert: list[int] = []
    for item in maps:
        description = model(item)
        regions, _ = regions_to_review(item.probabilities, item.grid, item.offset, description)
        errors = gross_errors(item.probabilities.argmax(axis=0).astype(np.uint8), item.truth, spacing=item.spacing)
        seen = look(errors, item.voxels_of(regions), spacing=item.spacing)
        recalls.append(seen.recall(10))
        holds += seen.holds
        on_expert.append(len(reviewed_regions(item, item.truth, description)))
    numbers = {
        "recall at 10": round(float(np.nanmean(recalls)), 3),
        "looks with a gross error": round(float(np.mean(holds)), 3) if holds else float("nan"),
        "regions of an own result": round(len(holds) / len(maps), 1),
        "regions of an expert's label map": round(float(np.mean(on_expert)), 1),
        "expert label maps without a region": sum(count == 0 for count in on_expert),
    }
    return StudyRow(name, numbers=numbers)


def margin_rows(maps: Sequence[OutOfFoldMap], description: ModelDescription) -> list[StudyRow]:
    """The margin of each organ, and the share of scans that margins from the other scans contain."""
    dilations = np.stack(
        [
            containing_dilations_mm(
                item.probabilities.argmax(axis=0).astype(np.uint8),
                item.truth,
                classes=description.classes,
                spacing=item.spacing,
            )
            for item in maps
        ]
    )
    rows, contained = [], []
    for label, column in zip(description.labels, dilations.T, strict=True):
        values = [float(mm) for mm in column if not np.isnan(mm)]
        margin = conformal_margin(values, coverage=_COVERAGE)
        if margin is not None:
            numbers = {"margin, mm": margin.mm, "scans": margin.scans, "missed": margin.missed}
            rows.append(StudyRow(label.title, numbers=numbers))
        for n, mm in enumerate(values):
            others = conformal_margin(values[:n] + values[n + 1 :], coverage=_COVERAGE)
            if others is not None and np.isfinite(mm):
                contained.append(mm <= others.mm)
    share = {"contained, leaving one scan out": round(float(np.mean(contained)), 3)} if contained else {}
    return [*rows, StudyRow("all organs", numbers={"scans": len(maps), **share})]
