"""Scans in memory as training samples them: 8 bits a voxel on the model's grid, cut to the body, places of each class.

Body coordinates are smooth. They stay on the coarse grid on which the body-part network computes them and are
interpolated where a patch is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..imaging.volume import Grid
from ..models.manifest import ModelDescription
from ..networks.bodypart import BodyPartRegressor
from ..networks.space_to_depth import Stride
from .labelled_cases import TISSUE_THRESHOLD, Case, CaseFiles, load_case, load_scan

_CENTRES_PER_CLASS = 4000
_LEVELS = 255


@dataclass(frozen=True)
class TrainingVolume:
    """One scan on the model's grid from voxel `offset` of `grid` on, sides padded with air to whole coarse cells.

    Attributes:
        name: The case.
        image: (Z, Y, X) uint8, the model's window in 255 steps.
        labels: (Z, Y, X) uint8.
        coordinates: (3, z, y, x) float32, body coordinates in mm; a cell covers `coarse_stride` voxels.
        drawn: (classes,) bool, what was drawn; background always is.
        centres: Of each class, up to 4,000 of its voxels (N, 3) int16; the background's are those of the body.
        spacing_mm: Along z, y, x.
        inside: Sides (Z, Y, X) without the padding at the far ends.
        grid: The model's grid over the whole scan.
        offset: Where the volume begins on it.
    """

    name: str
    image: Tensor
    labels: Tensor
    coordinates: Tensor
    drawn: Tensor
    centres: tuple[Tensor, ...]
    spacing_mm: tuple[float, float, float]
    inside: tuple[int, int, int]
    grid: Grid
    offset: tuple[int, int, int]

    @property
    def organs(self) -> tuple[int, ...]:
        """Values of the organs that were drawn and can be seen."""
        return tuple(value for value, voxels in enumerate(self.centres) if value and len(voxels))

    @property
    def tissue(self) -> Tensor:
        """(Z, Y, X) bool, what is no air."""
        return self.image > (TISSUE_THRESHOLD + 1) * (_LEVELS / 2)

    def to(self, device: torch.device | str) -> TrainingVolume:
        """The same with what patches are read from on another device."""
        return replace(
            self,
            image=self.image.to(device),
            labels=self.labels.to(device),
            coordinates=self.coordinates.to(device),
        )


def load_volumes(
    files: Sequence[CaseFiles], description: ModelDescription, regressor: BodyPartRegressor, *, trunk_stride: Stride
) -> list[TrainingVolume]:
    """Read cases onto the model's grid; `trunk_stride` is what one voxel of the trunk covers of it.

    Raises:
        DiffusionSegmentError: TRAINING_DATA, naming the case and what is wrong with it.
    """
    return [
        training_volume(load_case(case, description), regressor, description.classes, trunk_stride=trunk_stride)
        for case in files
    ]


def load_free_volumes(
    paths: Sequence[Path], description: ModelDescription, regressor: BodyPartRegressor, *, trunk_stride: Stride
) -> list[TrainingVolume]:
    """Read scans without labels, which serve denoising; otherwise as `load_volumes`."""
    return [
        training_volume(load_scan(path, description), regressor, description.classes, trunk_stride=trunk_stride)
        for path in paths
    ]


def training_volume(
    case: Case, regressor: BodyPartRegressor, classes: int, *, trunk_stride: Stride, seed: int = 0
) -> TrainingVolume:
    """A case on the model's grid as training keeps it; body coordinates are computed on the whole scan."""
    z, y, x = (step * regressor.stride for step in trunk_stride)
    # Begin at a whole voxel of the trunk's grid, and end at a whole cell.
    before = [o % step for o, step in zip(case.offset, trunk_stride, strict=True)]
    cells = [-(-(b + n) // step) for b, n, step in zip(before, case.image.shape, (z, y, x), strict=True)]
    sides = [n * step for n, step in zip(cells, (z, y, x), strict=True)]
    missing = [(b, side - b - n) for b, side, n in zip(before, sides, case.image.shape, strict=True)]
    image = np.pad(case.image, missing, constant_values=-1.0)
    labels = np.pad(case.labels, missing)
    drawn = [case.drawn is None or value in case.drawn or value == 0 for value in range(classes)]
    spacing_x, spacing_y, spacing_z = case.grid.spacing
    return TrainingVolume(
        name=case.name,
        image=torch.from_numpy(np.round((image + 1) * (_LEVELS / 2)).astype(np.uint8)),
        labels=torch.from_numpy(labels),
        coordinates=_coordinates(torch.from_numpy(image), regressor, trunk_stride, cells),
        drawn=torch.tensor(drawn),
        centres=class_centres(image > TISSUE_THRESHOLD, labels, drawn, seed=seed),
        spacing_mm=(spacing_z, spacing_y, spacing_x),
        inside=(before[0] + case.image.shape[0], before[1] + case.image.shape[1], before[2] + case.image.shape[2]),
        grid=case.grid,
        offset=(case.offset[0] - before[0], case.offset[1] - before[1], case.offset[2] - before[2]),
    )


@torch.inference_mode()
def _coordinates(image: Tensor, regressor: BodyPartRegressor, trunk_stride: Stride, cells: Sequence[int]) -> Tensor:
    """Body coordinates in mm (3, *cells) of an image (Z, Y, X) in -1..1, on the body-part network's own grid."""
    coarse = F.avg_pool3d(image[None, None], trunk_stride)
    padding = [amount for n in reversed(coarse.shape[2:]) for amount in (0, -n % regressor.multiple)]
    if max(coarse.shape[2:]) <= regressor.multiple:
        # The coarsest level would be a single voxel, over which group norm has no spread to divide by.
        padding[-1] += regressor.multiple
    found = regressor.coarse(F.pad(coarse, padding, value=-1.0))[0]
    return found[:, : cells[0], : cells[1], : cells[2]].clone()


def class_centres(body: np.ndarray, labels: np.ndarray, drawn: Sequence[bool], *, seed: int) -> tuple[Tensor, ...]:
    """Of each class that was drawn up to 4,000 of its voxels (n, 3) int16; the background's are those of `body`."""
    random = np.random.default_rng(seed)
    found = []
    for value, known in enumerate(drawn):
        mask = (labels == value) if value else body
        voxels = np.flatnonzero(mask) if known else np.empty(0, np.intp)
        chosen = random.choice(voxels, min(len(voxels), _CENTRES_PER_CLASS), replace=False) if len(voxels) else voxels
        places = np.stack(np.unravel_index(chosen, labels.shape), axis=1)
        found.append(torch.from_numpy(places.astype(np.int16)))
    return tuple(found)


def window_values(image: Tensor, window: tuple[float, float]) -> Tensor:
    """8-bit grey levels, also interpolated ones, as values of the window: HU for a CT."""
    low, high = window
    return image.float() * ((high - low) / _LEVELS) + low
