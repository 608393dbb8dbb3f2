"""`study diversity`: whether the samples of a refiner differ as much as they are wrong, and at the right positions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.imaging.volume import Box
from DiffusionSegmentBackend.metrics.diversity import (
    best_dice,
    fair_crps,
    jittered_copies,
    mask_dice,
    range_coverage,
    sample_range_covers,
    spread_skill,
)
from DiffusionSegmentBackend.metrics.overlap import dice_by_label
from DiffusionSegmentBackend.models.model import Model, load_model, weights_sha256
from DiffusionSegmentBackend.training.cross_fitting import stage_of
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from tqdm import tqdm

from .case_selection import cases_text, crop_of, selected_cases
from .measures_by_case import Measures, MeasuresByCase
from .presegmentation_paths import PathChains, PathInputs
from .refinement import Chain
from .result_file import StudyDescription, StudyResult, StudyRow, organ_table
from .study import StudyRequest
from .study_data import organ_names, training_budget

SAMPLES = 8
# Voxels around an organ in which its boundary is moved.
_MARGIN = 10
Labels = NDArray[np.uint8]
Spacing = tuple[float, float, float]


def study(request: StudyRequest) -> StudyResult:
    """The refiner of the first model, from its own pre-segmentations and from pure noise."""
    model = load_model(str(request.description.folder), "cpu")
    chains = chains_of(model)
    key = f"diversity {weights_sha256(model.description)} {request.options.crop} {SAMPLES} {request.seed}"
    store = MeasuresByCase(request.options.measures, key)
    measured: dict[str, dict[str, Measures]] = {chain.name: {} for chain in chains}
    for case in tqdm(selected_cases(request, model), desc="cases"):
        part = crop_of(case, request)
        for chain in chains:
            measure = partial(chain_measures, model, part, chain, seed=request.seed)
            measured[chain.name][case.name] = store.get(f"{case.name} {chain.name}", measure)
    rows = diversity_rows(measured, organ_names(model.description))
    return StudyResult(rows, _description(request, model, len(measured[chains[0].name])))


def _description(request: StudyRequest, model: Model, count: int) -> StudyDescription:
    return StudyDescription(
        order=43,
        title="Spread and skill of the samples",
        question="Do samples differ as much as they are wrong, and is the best of them better than a random variation?",
        protocol=f"{cases_text(request, count)}; refiner of {model.description.name}, K = {SAMPLES} samples, islands "
        "kept. Dice: of the label map of the samples' mean. Spread: mean 1 - Dice of two samples; skill: mean 1 - Dice "
        "of a sample and the truth; their ratio for each organ over all cases, then the mean over organs: 1 if the "
        "truth could be one of the samples. Volume CRPS (fair) and error of the mean volume as shares of the true "
        f"volume. Covered: true volumes within the range of the samples, nominally {range_coverage(SAMPLES):.3f}. Best "
        "of K: for each organ the best Dice, chosen by the truth; control: K copies of the mean whose boundary is "
        "moved by smooth random fields with the same spread.",
        budget=training_budget(model.description, "refiner"),
    )


def chains_of(model: Model) -> list[Chain]:
    """The chain of a run, and the same from pure noise."""
    defaults = model.description.defaults
    start, steps = defaults.abar_start, defaults.steps
    return [
        Chain(f"abar {start:g}, S = {steps}", start, steps, defaults.sampler),
        Chain(f"pure noise, S = {steps}", 0.0, steps, defaults.sampler),
    ]


def chain_measures(model: Model, case: Case, chain: Chain, *, seed: int) -> Measures:
    """Measures of the samples of one chain on one case."""
    plan = chain.plan(model.description.defaults.schedule)
    samples: list[Labels] = []
    z, y, x = case.labels.shape
    with torch.inference_mode():
        stage = stage_of(case, model)
        chains, inputs = PathChains(stage, model), PathInputs.same(stage.pre)
        mean = torch.zeros_like(stage.pre)
        for n in tqdm(range(SAMPLES), desc=chain.name, leave=False):
            probabilities = chains.sample(inputs, plan, sample=n)
            mean += probabilities / SAMPLES
            samples.append(probabilities[:, :z, :y, :x].argmax(dim=0).numpy().astype(np.uint8))
    of_mean = mean[:, :z, :y, :x].argmax(dim=0).numpy().astype(np.uint8)
    x_mm, y_mm, z_mm = model.description.spacing_mm
    return sample_measures(samples, of_mean, case.labels, (z_mm, y_mm, x_mm), model.description.classes, seed=seed)


def sample_measures(
    samples: Sequence[Labels], mean: Labels, truth: Labels, spacing: Spacing, classes: int, *, seed: int
) -> Measures:
    """Measures by organ of label maps: the samples, that of their mean, and the truth, all (z, y, x)."""
    both = spread_skill(samples, truth, classes)
    voxel_ml = float(np.prod(spacing)) / 1000
    counts = [np.bincount(m.ravel(), minlength=classes)[1:classes] for m in (*samples, truth)]
    volumes = np.array(counts).T * voxel_ml
    return {
        "dice": _numbers(dice_by_label(mean, truth, classes)),
        "spread": _numbers(both.spread),
        "skill": _numbers(both.skill),
        "volumes_ml": volumes[:, :-1].tolist(),
        "true_ml": volumes[:, -1].tolist(),
        "best": _numbers(best_dice(samples, truth, classes)),
        "control": _numbers(control_dice(mean, truth, both.spread, spacing, count=len(samples), seed=seed)),
    }


def control_dice(
    mean: Labels, truth: Labels, spread: NDArray[np.float64], spacing: Spacing, *, count: int, seed: int
) -> NDArray[np.float64]:
    """Best Dice of each organ (classes - 1,) among `count` copies of the mean with the given spread.

    NaN for an organ that the truth lacks.
    """
    best = np.full(len(spread), np.nan)
    boxes = find_objects(mean, max_label=len(spread))
    for index, box in enumerate(boxes):
        organ_truth = truth == index + 1
        if not organ_truth.any():
            continue
        if box is None:
            best[index] = 0
            continue
        window = _grown(box, mean.shape)
        rng = np.random.default_rng([seed, index])
        mask = mean[window] == index + 1
        copies = jittered_copies(mask, spacing, count=count, spread=float(spread[index]), rng=rng)
        outside = int(np.count_nonzero(organ_truth) - np.count_nonzero(organ_truth[window]))
        best[index] = max(_dice_with_outside(copy, organ_truth[window], outside) for copy in copies)
    return best


def _dice_with_outside(copy: NDArray[np.bool_], truth: NDArray[np.bool_], outside: int) -> float:
    """Dice of two masks in a window, with `outside` further voxels of the truth."""
    if not outside:
        return mask_dice(copy, truth)
    return 2 * np.count_nonzero(copy & truth) / (np.count_nonzero(copy) + np.count_nonzero(truth) + outside)


def _grown(box: tuple[slice, ...], shape: tuple[int, ...]) -> Box:
    sides = [slice(max(0, s.start - _MARGIN), min(n, s.stop + _MARGIN)) for s, n in zip(box, shape, strict=True)]
    return sides[0], sides[1], sides[2]


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    """None for NaN, which JSON lacks."""
    return [None if np.isnan(value) else float(value) for value in values]


def diversity_rows(measured: Mapping[str, Mapping[str, Measures]], organs: Sequence[str]) -> list[StudyRow]:
    """A row for each chain over all cases."""
    return [_row(name, by_case, organs) for name, by_case in measured.items()]


def _row(name: str, by_case: Mapping[str, Measures], organs: Sequence[str]) -> StudyRow:
    def of_cases(key: str) -> NDArray[np.float64]:
        """Values (cases, organs), NaN for absent organs."""
        return np.array([[np.nan if v is None else v for v in m[key]] for m in by_case.values()], np.float64)

    spread, skill, best, control = (of_cases(key) for key in ("spread", "skill", "best", "control"))
    shown = ~np.isnan(skill).all(axis=0)
    spread_sum, skill_sum = np.nansum(spread, axis=0)[shown], np.nansum(skill, axis=0)[shown]
    ratios = spread_sum[skill_sum > 0] / skill_sum[skill_sum > 0]
    numbers = {
        "spread": np.nanmean(spread),
        "skill": np.nanmean(skill),
        "spread-skill ratio": ratios.mean(),
        **_volume_numbers(by_case.values()),
        "best of K": np.nanmean(best),
        "control": np.nanmean(control),
        "best of K less control": np.nanmean(best - control),
    }
    dice = {case: organ_table([np.nan if v is None else v for v in m["dice"]], organs) for case, m in by_case.items()}
    return StudyRow(name, dice=dice, numbers={key: round(float(value), 4) for key, value in numbers.items()})


def _volume_numbers(measures: Iterable[Measures]) -> dict[str, float]:
    """Volume scores, means over all organs that the cases show."""
    scores: list[tuple[float, float, bool]] = []
    for m in measures:
        for volumes, true in zip(m["volumes_ml"], m["true_ml"], strict=True):
            if true > 0:
                error = abs(float(np.mean(volumes)) - true) / true
                scores.append((fair_crps(volumes, true) / true, error, sample_range_covers(volumes, true)))
    crps, error, covered = np.mean(scores, axis=0)
    return {"volume CRPS": crps, "error of the mean volume": error, "covered": covered}
