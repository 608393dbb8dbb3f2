"""Sliding-window inference of a `Segmenter` on a training volume, and Dice in the geometry of the scan."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray
from torch import Tensor

from ..datasets.labelled_cases import CaseFiles, read_case_labels
from ..datasets.volumes import TrainingVolume
from ..imaging.volume import coarser_grid
from ..imaging.volume_io import read_volume
from ..metrics.overlap import dice_by_label
from ..models.manifest import ModelDescription
from ..networks.bodypart import normalised
from ..networks.precision import autocast
from ..networks.segmenter import Segmenter
from ..networks.space_to_depth import Stride
from ..pipeline.restore import restore_labels
from ..pipeline.tiling import BLEND_SIGMA, TILE_OVERLAP
from .segmenter import SegmenterRecipe


@torch.inference_mode()
def whole_scan_probabilities(
    network: Segmenter,
    volume: TrainingVolume,
    recipe: SegmenterRecipe,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    overlap: float = TILE_OVERLAP,
) -> Tensor:
    """Probabilities (classes, z, y, x) on the grid of the network, which is that of the volume after `recipe.pool`.

    Patches have the size used in training, because the result of group norm depends on it; neighbouring patches overlap
    by the share `overlap` and are blended as in `Tiling`.
    """
    network = network.to(device).eval()
    shape = recipe.shape(network)
    sides = [n // p for n, p in zip(volume.image.shape, recipe.pool, strict=True)]
    image = volume.pooled_image(recipe.pool)[None, None]
    coordinates = F.interpolate(normalised(volume.coordinates)[None], size=sides, mode="trilinear", align_corners=False)

    def predict(tile: Tensor) -> Tensor:
        tile = tile.to(device, memory_format=torch.channels_last_3d)
        with autocast(torch.device(device), dtype):
            logits = network(tile[:, :1], F.avg_pool3d(tile[:, 1:], network.stride)).fine
        probabilities: Tensor = logits.float().softmax(dim=1).cpu()
        return probabilities

    roi = [n // p for n, p in zip(shape.voxels, recipe.pool, strict=True)]
    probabilities = sliding_window_inference(
        torch.cat([image, coordinates], dim=1),
        roi,
        1,
        predict,
        overlap=overlap,
        mode="gaussian",
        sigma_scale=BLEND_SIGMA,
        padding_mode="replicate",
    )
    assert isinstance(probabilities, Tensor)
    return probabilities[0]


def scan_labels(probabilities: Tensor, volume: TrainingVolume, pool: Stride) -> NDArray[np.uint8]:
    """Label map (k, j, i) of the scan: arg max of the probabilities, interpolated from the pooled grid."""
    grid = coarser_grid(volume.grid, pool)
    offset = [o // p for o, p in zip(volume.offset, pool, strict=True)]
    return restore_labels(probabilities, (offset[0], offset[1], offset[2]), grid)


def dice_on_scan(
    probabilities: Tensor, volume: TrainingVolume, files: CaseFiles, description: ModelDescription, pool: Stride
) -> NDArray[np.float64]:
    """Dice of each organ (classes - 1,) in the geometry of the scan; NaN for organs absent from the ground truth.

    Raises:
        DiffusionSegmentError: As for `read_case_labels`.
    """
    truth = read_case_labels(files, read_volume(files.image), description)
    return dice_by_label(scan_labels(probabilities, volume, pool), truth, description.classes)
