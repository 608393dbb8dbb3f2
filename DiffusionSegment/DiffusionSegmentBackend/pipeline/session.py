"""A finished run on the model's grid: what maps, alternatives and corrections are made from, without a new run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor

from ..imaging.volume import Grid
from .memory import AT_ONCE, Way
from .sampling import SamplingPlan

ENSEMBLE_WEIGHT = 0.5


@dataclass(frozen=True)
class Prediction:
    """Probabilities (classes, z, y, x) on the model's grid from voxel `offset` on: probe, start, probe and samples.

    `start` is what the samples start from: the probe's answer, or the label map that the run was given. `islands`
    (z, y, x), uint8, holds the labels of pieces that were taken out of the ensemble.
    `sample_labels` holds the label map (z, y, x), uint8, of every sample; `tiled_shape` (z, y, x) is the volume that
    the noise field covered, larger than the map where that is smaller than a tile. `warnings` say in plain words what
    is unusual about the scan's anatomy.
    """

    pre: Tensor
    start: Tensor
    ensemble: Tensor
    islands: Tensor
    mutual_information: Tensor
    sample_labels: tuple[Tensor, ...]
    coordinates_mm: Tensor
    offset: tuple[int, int, int]
    tiled_shape: tuple[int, int, int]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What is delivered: probabilities (classes, z, y, x) and mutual information (z, y, x) on the grid."""

    ensemble: Tensor
    mutual_information: Tensor


@dataclass(frozen=True)
class Session:
    """A finished run on the model's grid: what maps, alternatives and corrections are made from, without a new run.

    `image` (z, y, x) in -1..1 covers the whole grid; `wanted` are the labels asked for, none for all; `voxel_ml` is the
    volume of the scan's own voxel. `corrected` is the answer after a reader's `marks` (z, y, x), k + 1 for label k.
    """

    grid: Grid
    image: Tensor
    prediction: Prediction
    plan: SamplingPlan
    samples: int
    wanted: list[int]
    voxel_ml: float
    seconds: dict[str, float]
    region: tuple[float, ...] | None = None
    way: Way = AT_ONCE
    notice: str = ""
    corrected: Answer | None = None
    marks: Tensor | None = None

    @property
    def first_answer(self) -> Answer:
        """What the model said before anybody corrected it."""
        return Answer(self.prediction.ensemble, self.prediction.mutual_information)

    @property
    def answer(self) -> Answer:
        """What is shown now."""
        return self.corrected or self.first_answer


@dataclass
class Stopwatch:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 3)
