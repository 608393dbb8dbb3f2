"""CutMix between patients at equal body coordinates.

Yun et al. 2019 (arXiv 1905.04899) in three dimensions. Patches at equal body coordinates keep the anatomy plausible and
consistent with the coordinates that are an input of the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..networks.space_to_depth import Stride
from .volumes import TrainingVolume

_SIDE_SHARE = (0.3, 0.7)
_MAX_DISTANCE_MM = 30.0


@dataclass(frozen=True)
class CutMix:
    """The probability that a box of a patch is replaced by that of another patient."""

    probability: float = 0.4

    def partner(
        self, volume: TrainingVolume, centre: Tensor, volumes: Sequence[TrainingVolume], generator: torch.Generator
    ) -> tuple[TrainingVolume, Tensor] | None:
        """A random other volume, and its voxel (3,) with the body coordinates nearest to those of `centre`.

        None if no other volume has the same annotated organs, or the chosen one has no such voxel within 30 mm.
        """
        others = [item for item in volumes if item is not volume and torch.equal(item.drawn, volume.drawn)]
        if not others:
            return None
        other = others[int(torch.randint(len(others), (), generator=generator))]
        strides = _strides(volume)
        z, y, x = (torch.minimum(centre // strides, torch.tensor(volume.coordinates.shape[1:]) - 1)).long().tolist()
        distances = (other.coordinates - volume.coordinates[:, z, y, x, None, None, None]).norm(dim=0)
        if float(distances.min()) > _MAX_DISTANCE_MM:
            return None
        cell = torch.tensor(torch.unravel_index(distances.argmin(), distances.shape))
        return other, cell * _strides(other) + _strides(other) // 2


def paste(
    target: tuple[Tensor, Tensor, Tensor],
    source: tuple[Tensor, Tensor, Tensor],
    stride: Stride,
    generator: torch.Generator,
) -> None:
    """Copy a random box of `source` into `target`, both (image, coordinates on the grid of the trunk, labels)."""
    image, coordinates, labels = target
    coarse, fine = [], []
    for n, step in zip(coordinates.shape[2:], stride, strict=True):
        low, high = _SIDE_SHARE
        side = max(1, round(n * (low + (high - low) * float(torch.rand((), generator=generator)))))
        start = int(torch.randint(n - side + 1, (), generator=generator))
        coarse.append(slice(start, start + side))
        fine.append(slice(start * step, (start + side) * step))
    every = (slice(None), slice(None))
    image[(*every, *fine)] = source[0][(*every, *fine)]
    coordinates[(*every, *coarse)] = source[1][(*every, *coarse)]
    labels[(*every, *fine)] = source[2][(*every, *fine)]


def _strides(volume: TrainingVolume) -> Tensor:
    """Voxels (3,) per voxel of the coordinates of the volume."""
    return torch.tensor([n // cells for n, cells in zip(volume.image.shape, volume.coordinates.shape[1:], strict=True)])
