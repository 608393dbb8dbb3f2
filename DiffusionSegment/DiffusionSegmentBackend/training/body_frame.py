"""The common body frame: one map per patient, fitted to align the organ centroids of all patients.

Generalised Procrustes analysis (Gower 1975) with a scale and a shift for each axis. Models of different body parts can
share the frame: their model.json gives the position of each organ in it (`body_mm`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.labelled_cases import Case
from ..models.layout import axis_parallel_fit

_ROUNDS = 20
_MIN_VOXELS = 5


@dataclass(frozen=True)
class FrameMap:
    """Map from LPS to body coordinates in mm: scale * LPS + shift, each (3,) for x, y, z."""

    scale: NDArray[np.float64]
    shift: NDArray[np.float64]

    def coordinates(self, lps: NDArray[Any]) -> NDArray[np.float64]:
        """Body coordinates (..., 3) in mm of LPS points (..., 3)."""
        return lps * self.scale + self.shift


def organ_centroids(case: Case, classes: int) -> NDArray[np.float64]:
    """LPS centroid in mm of each label 1..classes-1, (classes - 1, 3); NaN for an organ of less than 5 voxels."""
    centroids = np.full((classes - 1, 3), np.nan)
    for value in range(1, classes):
        voxels = np.argwhere(case.labels == value)
        if len(voxels) >= _MIN_VOXELS:
            centroids[value - 1] = case.lps(voxels.mean(axis=0))
    return centroids


def fit_to_frame(centroids: Sequence[NDArray[np.float64]], template: NDArray[np.float64]) -> list[FrameMap]:
    """One map per patient from its organ centroids (organs, 3) to the positions (organs, 3) of the frame.

    A patient without known organs gets scale 1 and an undefined shift (NaN).
    """
    return [_fit(own, template) for own in centroids]


def fit_body_frame(centroids: Sequence[NDArray[np.float64]]) -> tuple[list[FrameMap], NDArray[np.float64]]:
    """Fit the frame to organ centroids (organs, 3): one map per patient, and the zero-mean template (organs, 3)."""
    points = np.stack(centroids)
    points_centred = points - np.nanmean(points, axis=1, keepdims=True)
    template = np.nanmean(points_centred, axis=0)
    maps: list[FrameMap] = []
    for _ in range(_ROUNDS):
        maps = [_fit(own, template) for own in points]
        mapped = np.stack([m.coordinates(own) for m, own in zip(maps, points, strict=True)])
        template = np.nanmean(mapped, axis=0)
        template = template - np.nanmean(template, axis=0)
        mean_scale = np.exp(np.mean([np.log(m.scale) for m in maps], axis=0))
        template = template / mean_scale
    return maps, template


def _fit(own: NDArray[np.float64], template: NDArray[np.float64]) -> FrameMap:
    known = np.all(np.isfinite(own), axis=1) & np.all(np.isfinite(template), axis=1)
    a, b = own[known], template[known]
    if not len(a):
        return FrameMap(scale=np.ones(3), shift=np.full(3, np.nan))
    scale, shift = axis_parallel_fit(a, b)
    return FrameMap(scale=scale, shift=shift)
