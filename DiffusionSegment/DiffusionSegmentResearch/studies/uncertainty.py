"""`study uncertainty`: samples and ensemble compared with softmax, temperature scaling, augmentation and dropout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import TISSUE_THRESHOLD, Case
from DiffusionSegmentBackend.metrics.calibration import (
    area_under_risk_coverage,
    band_ece,
    brier,
    negative_log_likelihood,
    rank_correlation,
    tempered,
)
from DiffusionSegmentBackend.metrics.overlap import dice_by_label, errors_in_most_uncertain
from DiffusionSegmentBackend.models.model import Model, load_model
from DiffusionSegmentBackend.models.tile_shape import TILE_SIDE, TileShape
from DiffusionSegmentBackend.networks.precision import inference_dtype
from DiffusionSegmentBackend.networks.temperature import as_trained, temperature
from DiffusionSegmentBackend.pipeline.options import SegmentOptions, run_plan_of
from DiffusionSegmentBackend.pipeline.prediction import refine
from DiffusionSegmentBackend.pipeline.sampling import SamplingPlan
from DiffusionSegmentBackend.pipeline.session import ENSEMBLE_WEIGHT
from DiffusionSegmentBackend.pipeline.uncertainty import entropy, volume_interval_ml
from DiffusionSegmentBackend.training.cross_fitting import stage_of, temperature_of
from DiffusionSegmentBackend.training.presegmentations import probe_map
from DiffusionSegmentBackend.training.session import add_coordinates, load_cases
from monai.transforms import Compose, RandGaussianNoise, RandScaleIntensity, RandShiftIntensity
from monai.utils import convert_to_tensor
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from .result_file import StudyDescription, StudyResult, StudyRow, organ_table
from .study import StudyRequest
from .study_data import organ_names, training_budget

_SHARES = (0.01, 0.02, 0.05)
_RAW = "probe, softmax"
_TEMPERED = "probe, temperature fitted on the other cases"


def study(request: StudyRequest) -> StudyResult:
    """The first model on its validation cases."""
    model = load_model(str(request.description.folder), "auto")
    cases = load_cases(request.data, model.description, part="validation")
    add_coordinates(cases, model.bodypart)
    description = StudyDescription(
        order=50,
        title=f"Uncertainty of {model.description.name}",
        question="Does the uncertainty say where the model is wrong?",
        protocol=f"{len(cases)} validation cases on the model's grid, inside the body; band ECE within 5 mm of true "
        "boundaries; AURC by the largest probability; shares and rank correlation by entropy.",
        budget=training_budget(model.description, "probe"),
        reference=_RAW,
    )
    return StudyResult(uncertainty_rows(model, cases), description)


@dataclass(frozen=True, kw_only=True)
class UncertaintyMeasures:
    """Measures of one case inside its body.

    Attributes:
        dice: Dice (classes - 1,), NaN for an absent organ.
        band_ece: expected calibration error within 5 mm of true boundaries.
        brier: Brier score.
        nll: negative log-likelihood.
        aurc: area under the risk-coverage curve by the largest probability.
        error_shares: share of the wrong voxels among the 1, 2 and 5 % most uncertain ones.
        covered: for each organ that the case shows, whether its 90 % interval holds the true volume.
        organ_uncertainty: mean entropy in each predicted organ (classes - 1,), NaN for one that is not predicted.
    """

    dice: NDArray[np.float64]
    band_ece: float
    brier: float
    nll: float
    aurc: float
    error_shares: Sequence[float]
    covered: Sequence[bool]
    organ_uncertainty: Sequence[float]


def uncertainty_rows(
    model: Model, cases: Sequence[Case], *, samples: int = 4, passes: int = 4, seed: int = 0
) -> list[StudyRow]:
    """One row per method over all cases on the model's grid, with `samples` of diffusion and `passes` of the others."""
    organs = list(organ_names(model.description))
    collected: dict[str, list[UncertaintyMeasures]] = {}
    raw = []
    for case in tqdm(cases, desc="cases"):
        with torch.inference_mode():
            maps = method_maps(model, case, samples=samples, passes=passes, seed=seed)
        raw.append(maps[_RAW].half().numpy())
        for name, probabilities in maps.items():
            collected.setdefault(name, []).append(case_measures(probabilities.numpy(), case, model))
    for n, case in enumerate(cases if len(cases) > 1 else []):
        others = [(c, r) for m, (c, r) in enumerate(zip(cases, raw, strict=True)) if m != n]
        fitted = temperature_of([c for c, _ in others], [r for _, r in others])
        calibrated = tempered(raw[n].astype(np.float32), fitted).astype(np.float32)
        collected.setdefault(_TEMPERED, []).append(case_measures(calibrated, case, model))
    return [measured_row(name, cases, measured, organs) for name, measured in collected.items()]


def method_maps(model: Model, case: Case, *, samples: int, passes: int, seed: int) -> dict[str, Tensor]:
    """Probabilities (classes, z, y, x) of every method for one case."""
    image, coordinates = case.padded(TileShape.cube(TILE_SIDE))
    stage = stage_of(case, model)
    plan = SamplingPlan.of(run_plan_of(SegmentOptions(seed=seed), model))
    mean = refine(stage, model, plan, samples=samples).mean
    crop = (slice(None), *(slice(0, n) for n in case.image.shape))
    with as_trained(model.probe):
        methods = {
            _RAW: _probe_pass(model, image, coordinates),
            f"probe, {passes} augmentations": _augmented(model, image, coordinates, passes, seed),
            f"probe, {passes} dropouts": _dropped_out(model, image, coordinates, passes, seed),
        }
    if temperature(model.probe) != 1.0:
        methods["probe, as shipped"] = stage.pre
    methods |= {
        f"diffusion, K = {samples}": mean,
        "diffusion + probe": ENSEMBLE_WEIGHT * mean + (1 - ENSEMBLE_WEIGHT) * stage.pre,
    }
    return {name: values[crop].float() for name, values in methods.items()}


def _probe_pass(model: Model, image: Tensor, coordinates: Tensor) -> Tensor:
    bf16 = inference_dtype(model.device) is torch.bfloat16
    return probe_map(image, coordinates, model.backbone, model.probe, device=model.device.type, bf16=bf16)


def _augmented(model: Model, image: Tensor, coordinates: Tensor, count: int, seed: int) -> Tensor:
    """Test-time augmentation of intensities as in training; without mirroring, because organs have a side."""
    vary = Compose(
        [
            RandScaleIntensity(factors=0.15, prob=1.0),
            RandShiftIntensity(offsets=0.1, prob=1.0),
            RandGaussianNoise(prob=1.0, std=0.05),
        ]
    ).set_random_state(seed=seed)
    passes = [
        _probe_pass(model, convert_to_tensor(vary(image[None].clone()), track_meta=False)[0], coordinates)
        for _ in range(count)
    ]
    return torch.stack(passes).mean(dim=0)


def _dropped_out(model: Model, image: Tensor, coordinates: Tensor, count: int, seed: int) -> Tensor:
    """Monte Carlo dropout (Gal and Ghahramani 2016) on the probe, with the rate of its training."""
    torch.manual_seed(seed)
    for module in model.probe.modules():
        module.train(isinstance(module, nn.Dropout3d))
    try:
        return torch.stack([_probe_pass(model, image, coordinates) for _ in range(count)]).mean(dim=0)
    finally:
        model.probe.eval()


def case_measures(probabilities: NDArray[np.float32], case: Case, model: Model) -> UncertaintyMeasures:
    """All measures of one case inside its body; `probabilities` (classes, z, y, x)."""
    classes = probabilities.shape[0]
    x, y, z = model.description.spacing_mm
    spacing = (z, y, x)
    labels = case.labels.astype(np.int64)
    body = case.image > TISSUE_THRESHOLD
    predicted = probabilities.argmax(axis=0).astype(np.uint8)
    uncertainty = entropy(torch.from_numpy(probabilities)).numpy()
    wrong = (predicted != case.labels)[body]
    inside = probabilities[:, body]
    return UncertaintyMeasures(
        dice=dice_by_label(predicted, case.labels, classes),
        band_ece=band_ece(probabilities, labels, spacing),
        brier=brier(inside, labels[body]),
        nll=negative_log_likelihood(inside, labels[body]),
        aurc=area_under_risk_coverage(inside.max(axis=0), ~wrong),
        error_shares=[errors_in_most_uncertain(uncertainty[body], wrong, share=share) for share in _SHARES],
        covered=_covered(probabilities, labels, voxel_ml=float(np.prod(spacing)) / 1000.0),
        organ_uncertainty=[
            float(uncertainty[predicted == value].mean()) if (predicted == value).any() else np.nan
            for value in range(1, classes)
        ],
    )


def _covered(probabilities: NDArray[np.float32], labels: NDArray[np.int64], *, voxel_ml: float) -> list[bool]:
    """For each organ of `labels`, whether the 90 % interval of its volume holds the true volume."""
    covered = []
    for value in range(1, probabilities.shape[0]):
        count = np.count_nonzero(labels == value)
        if count:
            low, high = volume_interval_ml(probabilities[value], voxel_ml)
            covered.append(bool(low <= count * voxel_ml <= high))
    return covered


def measured_row(
    name: str, cases: Sequence[Case], measured: Sequence[UncertaintyMeasures], organs: Sequence[str]
) -> StudyRow:
    """The row of a method: means over the measures of all cases."""
    scores = {
        "band ECE": [m.band_ece for m in measured],
        "Brier": [m.brier for m in measured],
        "NLL": [m.nll for m in measured],
        "AURC": [m.aurc for m in measured],
    }
    numbers = {key: round(float(np.mean(values)), 5) for key, values in scores.items()}
    for n, share in enumerate(_SHARES):
        numbers[f"wrong in top {100 * share:g} %"] = round(float(np.mean([m.error_shares[n] for m in measured])), 4)
    numbers["coverage of 90 % intervals"] = round(float(np.mean([hit for m in measured for hit in m.covered])), 4)
    uncertainty = np.concatenate([m.organ_uncertainty for m in measured])
    dice = np.concatenate([m.dice for m in measured])
    numbers["rank correlation, organs"] = round(rank_correlation(uncertainty, dice), 4)
    table = {case.name: organ_table(m.dice, organs) for case, m in zip(cases, measured, strict=True)}
    return StudyRow(name, dice=table, numbers=numbers)
