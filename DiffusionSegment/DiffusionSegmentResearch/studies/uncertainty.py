"""Uncertainty that means something: samples and ensemble against softmax, temperature, augmentation and dropout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
from DiffusionSegmentBackend.models.model import Model
from DiffusionSegmentBackend.models.tile_shape import TILE_SIDE, TileShape
from DiffusionSegmentBackend.networks.precision import inference_dtype
from DiffusionSegmentBackend.networks.temperature import as_trained, temperature
from DiffusionSegmentBackend.pipeline.options import SegmentOptions, plan_of
from DiffusionSegmentBackend.pipeline.prediction import refine
from DiffusionSegmentBackend.pipeline.session import ENSEMBLE_WEIGHT
from DiffusionSegmentBackend.pipeline.uncertainty import entropy, volume_interval_ml
from DiffusionSegmentBackend.training.cross_fitting import stage_of, temperature_of
from DiffusionSegmentBackend.training.presegmentations import probe_map
from monai.transforms import Compose, RandGaussianNoise, RandScaleIntensity, RandShiftIntensity
from monai.utils import convert_to_tensor
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from .result_file import StudyRow, organ_table

_SHARES = (0.01, 0.02, 0.05)
_RAW = "probe, softmax"
_TEMPERED = "probe, temperature fitted on the other cases"


def uncertainty_rows(
    model: Model, cases: Sequence[Case], *, samples: int = 4, passes: int = 4, seed: int = 0
) -> list[StudyRow]:
    """One row a method, over all cases on the model's grid; as many diffusion samples as other stochastic passes."""
    organs = [label.name for label in model.description.labels]
    collected: dict[str, list[dict[str, Any]]] = {}
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
    plan, _ = plan_of(SegmentOptions(seed=seed), model)
    mean = refine(stage, model, plan, samples=samples).mean
    crop = (slice(None), *(slice(0, n) for n in case.image.shape))
    with as_trained(model.probe):
        found = {
            _RAW: _probe_pass(model, image, coordinates),
            f"probe, {passes} augmentations": _augmented(model, image, coordinates, passes, seed),
            f"probe, {passes} dropouts": _dropped_out(model, image, coordinates, passes, seed),
        }
    if temperature(model.probe) != 1.0:
        found["probe, as shipped"] = stage.pre
    found |= {
        f"diffusion, K = {samples}": mean,
        "diffusion + probe": ENSEMBLE_WEIGHT * mean + (1 - ENSEMBLE_WEIGHT) * stage.pre,
    }
    return {name: values[crop].float() for name, values in found.items()}


def _probe_pass(model: Model, image: Tensor, coordinates: Tensor) -> Tensor:
    bf16 = inference_dtype(model.device) is torch.bfloat16
    return probe_map(image, coordinates, model.backbone, model.probe, device=model.device.type, bf16=bf16)


def _augmented(model: Model, image: Tensor, coordinates: Tensor, count: int, seed: int) -> Tensor:
    """Test-time augmentation of intensities, as in training; anatomy has a left and a right, so nothing is mirrored."""
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
    """Monte Carlo dropout (Gal and Ghahramani 2016) on the probe, with the rate it was trained with."""
    torch.manual_seed(seed)
    for module in model.probe.modules():
        module.train(isinstance(module, nn.Dropout3d))
    try:
        return torch.stack([_probe_pass(model, image, coordinates) for _ in range(count)]).mean(dim=0)
    finally:
        model.probe.eval()


def case_measures(probabilities: NDArray[np.float32], case: Case, model: Model) -> dict[str, Any]:
    """All measures of one case inside its body; probabilities (classes, z, y, x)."""
    classes = probabilities.shape[0]
    x, y, z = model.description.spacing_mm
    spacing = (z, y, x)
    labels = case.labels.astype(np.int64)
    body = case.image > TISSUE_THRESHOLD
    predicted = probabilities.argmax(axis=0).astype(np.uint8)
    doubt = entropy(torch.from_numpy(probabilities)).numpy()
    wrong = (predicted != case.labels)[body]
    inside = probabilities[:, body]
    voxel_ml = float(np.prod(spacing)) / 1000.0
    return {
        "dice": dice_by_label(predicted, case.labels, classes),
        "band ECE": band_ece(probabilities, labels, spacing),
        "Brier": brier(inside, labels[body]),
        "NLL": negative_log_likelihood(inside, labels[body]),
        "AURC": area_under_risk_coverage(inside.max(axis=0), ~wrong),
        "shares": [errors_in_most_uncertain(doubt[body], wrong, share=share) for share in _SHARES],
        "hits": [
            low <= np.count_nonzero(labels == value) * voxel_ml <= high
            for value in range(1, classes)
            if (labels == value).any()
            for low, high in [volume_interval_ml(probabilities[value], voxel_ml)]
        ],
        "organ_doubt": [
            float(doubt[predicted == value].mean()) if (predicted == value).any() else np.nan
            for value in range(1, classes)
        ],
    }


def measured_row(name: str, cases: Sequence[Case], measured: list[dict[str, Any]], organs: list[str]) -> StudyRow:
    """The row of a method from what `case_measures` found in each case."""
    numbers = {
        key: round(float(np.mean([m[key] for m in measured])), 5) for key in ("band ECE", "Brier", "NLL", "AURC")
    }
    for n, share in enumerate(_SHARES):
        numbers[f"wrong in top {100 * share:g} %"] = round(float(np.mean([m["shares"][n] for m in measured])), 4)
    numbers["coverage of 90 % intervals"] = round(float(np.mean([hit for m in measured for hit in m["hits"]])), 4)
    doubt = np.concatenate([m["organ_doubt"] for m in measured])
    dice = np.concatenate([m["dice"] for m in measured])
    numbers["rank correlation, organs"] = round(rank_correlation(doubt, dice), 4)
    table = {case.name: organ_table(m["dice"], organs) for case, m in zip(cases, measured, strict=True)}
    return StudyRow(name, dice=table, numbers=numbers)
