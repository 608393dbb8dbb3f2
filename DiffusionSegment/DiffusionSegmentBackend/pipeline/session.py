"""A finished run on the model's grid, from which maps, alternatives and corrections are made without a new run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..imaging.volume import Grid
from ..schema.run_options import RunPlan
from .memory import UNLIMITED, MemoryPlan

# Share of the samples' mean in the ensemble; the rest is the pre-segmentation (Fu et al. 2023).
ENSEMBLE_WEIGHT = 0.5
# Weight of a given segmentation that is reviewed, in its ensemble with the model: the given label is the arg max.
GIVEN_WEIGHT = 0.5 + 1 / 64


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Maps on a box of the model's grid that begins at voxel `offset` (z, y, x).

    Attributes:
        pre: the probe's probabilities (classes, z, y, x).
        start: probabilities (classes, z, y, x) from which the samples start: `pre`, or a given pre-segmentation. Of a
            segmentation that is reviewed: its ensemble with the model, with which corrections begin.
        ensemble: probabilities (classes, z, y, x), the weighted mean of probe and samples.
        islands: labels (z, y, x), uint8, of the pieces that were removed from the ensemble.
        mutual_information: of the samples (z, y, x), 0..1.
        sample_labels: the label map (z, y, x), uint8, of every sample.
        coordinates_mm: body coordinates (3, z, y, x) of the whole grid.
        offset: the box's first voxel (z, y, x).
        tiled_shape: shape (z, y, x) of the noise field, larger than the box where that is smaller than a tile.
        warnings: sentences on unusual anatomy.
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
class EnsembleMaps:
    """Probabilities (classes, z, y, x) and mutual information (z, y, x) on the prediction's box."""

    ensemble: Tensor
    mutual_information: Tensor


@dataclass(frozen=True, kw_only=True)
class Session:
    """A finished run, and the corrections applied to it so far.

    Attributes:
        grid: the model's grid over the scan.
        image: the networks' input (z, y, x) on the whole grid, -1..1.
        prediction: the maps of the run.
        run: the options of the run with the model's defaults filled in.
        wanted: label values requested; empty for all.
        voxel_ml: volume of a voxel of the scan.
        seconds: seconds by stage.
        memory_plan: restrictions by which the run fitted in memory.
        notice: warning about these restrictions, or empty.
        corrected: the maps after the corrections.
        scribbles: the corrections (z, y, x), k + 1 for label k, 0 elsewhere.
        reviewed: the segmentation (k, j, i) that is reviewed, as in `SegmentOptions`; None for a segmentation of ours.
    """

    grid: Grid
    image: Tensor
    prediction: Prediction
    run: RunPlan
    wanted: list[int]
    voxel_ml: float
    seconds: dict[str, float]
    memory_plan: MemoryPlan = UNLIMITED
    notice: str = ""
    corrected: EnsembleMaps | None = None
    scribbles: Tensor | None = None
    reviewed: NDArray[np.uint8] | None = None

    @property
    def given_weight(self) -> float:
        """Weight of the reviewed segmentation in the ensemble; 0 for a segmentation of the model's own."""
        return 0.0 if self.reviewed is None else GIVEN_WEIGHT

    @property
    def initial_maps(self) -> EnsembleMaps:
        """The maps before any correction."""
        return EnsembleMaps(self.prediction.ensemble, self.prediction.mutual_information)

    @property
    def maps(self) -> EnsembleMaps:
        """The maps after all corrections."""
        return self.corrected or self.initial_maps


@dataclass
class Stopwatch:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the seconds of the body of a `with` statement."""
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 3)
