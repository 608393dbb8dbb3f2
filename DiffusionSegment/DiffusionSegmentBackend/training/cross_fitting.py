"""Out-of-fold probabilities, and temperatures fitted on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ..datasets.folds import Fold
from ..datasets.labelled_cases import TISSUE_THRESHOLD, Case
from ..errors import DiffusionSegmentError, ErrorCode
from ..metrics.calibration import fit_temperature
from ..models.manifest import ModelDescription, read_description
from ..models.model import Model, load_model, load_network, save_network
from ..networks.temperature import as_trained, set_temperature
from ..pipeline.features import Stage1, first_stage
from ..pipeline.options import SegmentOptions, run_plan_of
from ..pipeline.prediction import refine
from ..pipeline.progress import silent
from ..pipeline.sampling import SamplingPlan
from .presegmentations import presegment, read_presegmentations, write_presegmentations
from .session import add_coordinates, load_cases

_VOXELS_PER_CASE = 20_000
_FLOOR = 1e-6
_MAX_UNKNOWN = 0.02


def presegment_fold(
    model_name: str, data: Sequence[Path], output: Path, *, fold: Fold, part: str = "train", device: str = "auto"
) -> None:
    """Write the probabilities of the probe for the held-out cases of `fold`, or for all cases if it holds out none."""
    model = load_model(model_name, device)
    cases = load_cases(data, model.description, part=part)
    chosen = fold.held_out(cases) or cases
    add_coordinates(chosen, model.bodypart)
    for case in chosen:
        probabilities = presegment([case], model.backbone, model.probe, device=model.device.type)
        write_presegmentations(output, [case], probabilities)


def calibrate(folder: Path, data: Sequence[Path], presegmentations: Path, *, part: str = "train") -> float:
    """Fit the temperature of the probe (Guo et al. 2017) on stored probabilities of cases not trained on, and store it.

    The stored probabilities must have been made at temperature 1.

    Raises:
        DiffusionSegmentError: TRAINING_DATA if the probabilities of a case are missing.
    """
    description = read_description(folder)
    cases = load_cases(data, description, part=part)
    stored = read_presegmentations(presegmentations, cases, description.classes)
    temperature = temperature_of(cases, stored)
    _store_temperature(description, "probe", temperature)
    return temperature


def calibrate_refiner(
    folder: Path, data: Sequence[Path], *, part: str = "validation", samples: int = 4, device: str = "auto"
) -> float:
    """Fit the temperature of the refiner on the mean of its samples of cases not trained on, and store it.

    Fit the temperature of the probe first, as the samples start from its probabilities.

    Raises:
        DiffusionSegmentError: WEIGHTS_MISSING for a model without a refiner.
    """
    model = load_model(str(folder), device)
    if model.refiner is None:
        raise DiffusionSegmentError(
            ErrorCode.WEIGHTS_MISSING, f"{folder} has no refiner.", hint="Train one with `diffusion-segment train`."
        )
    cases = load_cases(data, model.description, part=part)
    add_coordinates(cases, model.bodypart)
    plan = SamplingPlan.of(run_plan_of(SegmentOptions(), model))
    means = []
    with as_trained(model.refiner), torch.inference_mode():
        for case in tqdm(cases, desc="samples"):
            mean = refine(stage_of(case, model), model, plan, samples=samples).mean
            z, y, x = case.image.shape
            means.append(mean[:, :z, :y, :x].numpy().astype(np.float16))
    temperature = temperature_of(cases, means)
    _store_temperature(model.description, "refiner", temperature)
    return temperature


def stage_of(case: Case, model: Model, *, keep_features: bool = True) -> Stage1:
    """Features, if they are kept, and pre-segmentation of a case with coordinates, padded to at least one tile."""
    image, coordinates = case.padded(model.tile)
    return first_stage(image, coordinates, model, progress=silent, keep_features=keep_features)


def _store_temperature(description: ModelDescription, name: str, value: float) -> None:
    network = load_network(description, name)
    set_temperature(network, value)
    save_network(description.folder, name, network, architecture=dict(description.networks[name].architecture))


def temperature_of(cases: Sequence[Case], probabilities: Sequence[NDArray[np.float16]], *, seed: int = 0) -> float:
    """Fit the temperature to probabilities (classes, z, y, x) at random body voxels, equally many per case.

    In partially annotated cases, only voxels are used where the predicted probability of the organs without annotation
    is negligible. (Selecting voxels by their true label instead would bias the temperature.)
    """
    random = np.random.default_rng(seed)
    logits, labels = [], []
    for case, values in zip(cases, probabilities, strict=True):
        known = case.image > TISSUE_THRESHOLD
        if case.drawn is not None:
            unknown = [value for value in range(1, len(values)) if value not in case.drawn]
            known &= values[unknown].sum(axis=0, dtype=np.float32) < _MAX_UNKNOWN
        voxels = np.flatnonzero(known)
        chosen = random.choice(voxels, min(len(voxels), _VOXELS_PER_CASE), replace=False)
        logits.append(np.log(np.maximum(values.reshape(len(values), -1)[:, chosen].astype(np.float32), _FLOOR)))
        labels.append(case.labels.ravel()[chosen])
    return fit_temperature(np.concatenate(logits, axis=1), np.concatenate(labels).astype(np.int64))
