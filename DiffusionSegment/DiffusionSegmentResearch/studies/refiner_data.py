"""Cases and pre-segmentations for the training and the test of refiners, by the pre-segmenter of a shipped model.

The model has seen its training cases, and finds in them next to nothing wrong. So refiners are trained on what it finds
in degraded images of these cases: the more an image is degraded, the weaker the pre-segmentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.models.model import Model
from DiffusionSegmentBackend.training.degraded_scans import degraded, presegmented
from DiffusionSegmentBackend.training.session import add_coordinates, load_cases
from numpy.typing import NDArray
from tqdm import tqdm

from .degraded_predictions import degraded_predictions
from .study import StudyRequest

# Weaker degradation leaves a model that knows the case few errors.
_MIN_STRENGTH = 0.3


@dataclass(frozen=True)
class PresegmentedCase:
    """A case on the grid of the model, and probabilities (classes, z, y, x) of its pre-segmentation."""

    case: Case
    presegmentation: NDArray[np.float16]


def training_cases(request: StudyRequest, model: Model) -> list[PresegmentedCase]:
    """Every training case twice, each with what the model finds in another degraded image of it.

    The cases themselves keep their images. Pre-segmentations are kept in the folder of the trainings.
    """
    cases = load_cases(request.data, model.description)
    add_coordinates(cases, model.bodypart)
    folder = request.trainings / "presegmentations"
    result = []
    for number, case in enumerate(tqdm(cases, desc="errors of the segmenter")):
        found = degraded_predictions(case, model, _from_degraded, folder, seed=(request.seed, number))
        result += [PresegmentedCase(case, probabilities) for probabilities in found]
    return result


def _from_degraded(case: Case, model: Model, random: np.random.Generator) -> NDArray[np.float16]:
    strength = random.uniform(_MIN_STRENGTH, 1.0)
    found = presegmented(replace(case, image=degraded(case.image, random, strength=strength)), model)
    return found.half().numpy()


def validation_cases(request: StudyRequest, model: Model) -> list[PresegmentedCase]:
    """The validation cases, which no network has seen, with the pre-segmentations of the model."""
    cases = load_cases(request.data, model.description, part="validation")
    add_coordinates(cases, model.bodypart)
    found = (presegmented(case, model).half().numpy() for case in tqdm(cases, desc="validation cases"))
    return [PresegmentedCase(case, pre) for case, pre in zip(cases, found, strict=True)]


def ensemble_maps(cases: Sequence[PresegmentedCase], others: Sequence[Model]) -> dict[str, list[NDArray[np.float16]]]:
    """Probabilities of every case by the model itself and by the pre-segmenters of others with the same grid."""
    maps = {}
    for item in tqdm(cases, desc="ensemble"):
        found = (presegmented(item.case, other).half().numpy() for other in others)
        maps[item.case.name] = [item.presegmentation, *found]
    return maps
