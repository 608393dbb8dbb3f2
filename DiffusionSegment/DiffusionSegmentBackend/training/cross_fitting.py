"""Probabilities of cases that a network never saw, and the temperature fitted on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..evaluation.calibration import fit_temperature
from ..networks.probe import Probe
from ..pipeline.description import read_description
from ..pipeline.model import load_model, load_network, save_network
from .data import TISSUE_THRESHOLD, Case
from .folds import Fold
from .presegmentations import presegment, read_presegmentations, write_presegmentations
from .session import add_coordinates, load_cases

_VOXELS_PER_CASE = 20_000
_FLOOR = 1e-6


def presegment_fold(
    model_name: str, data: Sequence[Path], output: Path, *, fold: Fold, part: str = "train", device: str = "auto"
) -> None:
    """Write the probe's probabilities of the cases of `part` that `fold` holds out, or of all if it holds out none."""
    model = load_model(model_name, device)
    cases = load_cases(data, model.description, part=part)
    chosen = fold.held_out(cases) or cases
    add_coordinates(chosen, model.bodypart)
    for case in chosen:
        found = presegment([case], model.backbone, model.probe, device=model.device.type)
        write_presegmentations(output, [case], found)


def calibrate(folder: Path, data: Sequence[Path], presegmentations: Path, *, part: str = "train") -> float:
    """Fit the temperature (Guo et al. 2017) on stored probabilities of cases not trained on; write it into the probe.

    The stored probabilities must have been made at temperature 1.

    Raises:
        DiffusionSegmentError: TRAINING_DATA when a case's probabilities are missing.
    """
    description = read_description(folder)
    cases = load_cases(data, description, part=part)
    stored = read_presegmentations(presegmentations, cases, description.classes)
    temperature = temperature_of(cases, stored)
    probe = cast(Probe, load_network(description, "probe"))
    cast(Tensor, probe.temperature).fill_(temperature)
    save_network(folder, "probe", probe, architecture=dict(description.networks["probe"].architecture))
    return temperature


def temperature_of(cases: Sequence[Case], probabilities: Sequence[NDArray[np.float16]], *, seed: int = 0) -> float:
    """Temperature of probabilities (classes, z, y, x) on random body voxels, as many of each case.

    Voxels of a case whose organs were not all drawn count only where an organ was: elsewhere the truth is unknown.
    """
    random = np.random.default_rng(seed)
    logits, labels = [], []
    for case, values in zip(cases, probabilities, strict=True):
        known = case.image > TISSUE_THRESHOLD
        if case.drawn is not None and len(case.drawn) < values.shape[0] - 1:
            known &= case.labels > 0
        places = np.flatnonzero(known)
        chosen = random.choice(places, min(len(places), _VOXELS_PER_CASE), replace=False)
        logits.append(np.log(np.maximum(values.reshape(len(values), -1)[:, chosen].astype(np.float32), _FLOOR)))
        labels.append(case.labels.ravel()[chosen])
    return fit_temperature(np.concatenate(logits, axis=1), np.concatenate(labels).astype(np.int64))
