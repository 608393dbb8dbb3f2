"""Predictions of a model on degraded images of a case, which a study computes once and keeps in files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.models.model import Model
from numpy.typing import NDArray

from .stored_array import stored_array

PREDICTIONS_A_CASE = 2
# What a model finds in the image of a case, degraded at random.
Find = Callable[[Case, Model, np.random.Generator], NDArray[Any]]


def degraded_predictions(
    case: Case, model: Model, find: Find, folder: Path, *, seed: tuple[int, int]
) -> list[NDArray[Any]]:
    """Two predictions for a case with body coordinates; `seed` is that of the study and the number of the case."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        stored_array(folder / f"{case.name}-{n}.npy", partial(find, case, model, np.random.default_rng((*seed, n))))
        for n in range(PREDICTIONS_A_CASE)
    ]
