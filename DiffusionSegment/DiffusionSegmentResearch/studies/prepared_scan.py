"""A scan on the model's grid, as the networks take it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.models.model import Model
from DiffusionSegmentBackend.pipeline.features import body_box, body_coordinates, padded
from DiffusionSegmentBackend.pipeline.prepare import network_input
from torch import Tensor


@dataclass(frozen=True)
class PreparedScan:
    """Network input (z, y, x) in -1..1 of a whole scan, and its body coordinates (3, z, y, x) in mm."""

    image: Tensor
    coordinates_mm: Tensor

    def tile_input(self, model: Model) -> tuple[Tensor, Tensor]:
        """Image (z, y, x) and coordinates in mm (3, z, y, x) of the box around the body, padded to whole tiles."""
        box = body_box(self.image, min_shape=model.tile.voxels)
        image = padded(self.image[box][None], tile=model.tile, value=-1.0)[0]
        return image, padded(self.coordinates_mm[(slice(None), *box)], tile=model.tile, value=0.0)


def prepare_scan(volume: Volume, model: Model) -> PreparedScan:
    """Resample a scan (k, j, i) to the model's grid and locate its voxels in the body; call in inference mode.

    Raises:
        DiffusionSegmentError: GEOMETRY, INPUT_VALUES.
    """
    grid = model_grid(volume, spacing=model.description.spacing_mm)
    image = torch.from_numpy(network_input(volume, grid, model.description))
    return PreparedScan(image, body_coordinates(image, model))
