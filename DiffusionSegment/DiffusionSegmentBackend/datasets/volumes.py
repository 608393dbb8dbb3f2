"""Training volumes in memory: 8 bits per voxel on the model's grid, cropped to the body.

Body coordinates are kept on the coarse grid of the body-part network and interpolated when a patch is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..imaging.volume import Grid
from ..models.manifest import ModelDescription
from ..networks.bodypart import BodyPartRegressor
from ..networks.space_to_depth import Stride
from .labelled_cases import TISSUE_THRESHOLD, Case, CaseFiles, load_case

_CENTRES_PER_CLASS = 4000
_LEVELS = 255


@dataclass(frozen=True)
class TrainingVolume:
    """One scan on the model's grid, cropped to the body and padded with air to whole voxels of the coordinate grid.

    Attributes:
        name: Name of the case.
        image: (Z, Y, X) uint8, the intensity window in 255 steps.
        labels: (Z, Y, X) uint8.
        coordinates: (3, z, y, x) float32, body coordinates in mm on a coarser grid.
        drawn: (classes,) bool, the annotated classes, including background.
        centres: For each class up to 4,000 of its voxels (N, 3) int16; for background, voxels of the body.
        spacing_mm: Along z, y, x.
        inside: Sides (Z, Y, X) without the padding at the far ends.
        grid: The model's grid over the whole scan.
        offset: First voxel of the volume on `grid`.
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
        """Label values of the annotated organs that are present."""
        return tuple(value for value, voxels in enumerate(self.centres) if value and len(voxels))

    @property
    def tissue(self) -> Tensor:
        """(Z, Y, X) bool, voxels that are not air."""
        return self.image > (TISSUE_THRESHOLD + 1) * (_LEVELS / 2)

    def pooled_image(self, pool: Stride) -> Tensor:
        """The image (z, y, x), float32 in -1..1, averaged over `pool` voxels."""
        pooled: Tensor = F.avg_pool3d(self.image[None, None].float() / (_LEVELS / 2) - 1, pool)[0, 0]
        return pooled

    def to(self, device: torch.device | str) -> TrainingVolume:
        """A copy with image, labels and coordinates on another device."""
        return replace(
            self,
            image=self.image.to(device),
            labels=self.labels.to(device),
            coordinates=self.coordinates.to(device),
        )


def load_volumes(
    files: Sequence[CaseFiles], description: ModelDescription, regressor: BodyPartRegressor, *, trunk_stride: Stride
) -> list[TrainingVolume]:
    """Read cases onto the model's grid; `trunk_stride` is the number of its voxels per voxel of the trunk.

    Raises:
        DiffusionSegmentError: TRAINING_DATA with the name of the case and the reason.
    """
    return [
        training_volume(load_case(case, description), regressor, description.classes, trunk_stride=trunk_stride)
        for case in files
    ]


def training_volume(
    case: Case, regressor: BodyPartRegressor, classes: int, *, trunk_stride: Stride, seed: int = 0
) -> TrainingVolume:
    """The training volume of a case; body coordinates are computed on the whole scan."""
    z, y, x = (step * regressor.stride for step in trunk_stride)
    # Align the start with the grid of the trunk and the end with the coordinate grid.
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
        # Avoid a coarsest level of a single voxel, whose variance is zero in group norm.
        padding[-1] += regressor.multiple
    coordinates = regressor.coarse(F.pad(coarse, padding, value=-1.0))[0]
    return coordinates[:, : cells[0], : cells[1], : cells[2]].clone()


def class_centres(body: np.ndarray, labels: np.ndarray, drawn: Sequence[bool], *, seed: int) -> tuple[Tensor, ...]:
    """For each annotated class up to 4,000 of its voxels (n, 3) int16; for background, voxels of `body`."""
    random = np.random.default_rng(seed)
    centres = []
    for value, known in enumerate(drawn):
        mask = (labels == value) if value else body
        voxels = np.flatnonzero(mask) if known else np.empty(0, np.intp)
        chosen = random.choice(voxels, min(len(voxels), _CENTRES_PER_CLASS), replace=False) if len(voxels) else voxels
        indices = np.stack(np.unravel_index(chosen, labels.shape), axis=1)
        centres.append(torch.from_numpy(indices.astype(np.int16)))
    return tuple(centres)


def window_values(image: Tensor, window: tuple[float, float]) -> Tensor:
    """Convert 8-bit grey levels, also interpolated ones, to the unit of the window: HU for a CT."""
    low, high = window
    return image.float() * ((high - low) / _LEVELS) + low
