"""Out-of-fold prediction of a scan: Dice in its geometry, and probabilities for calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...datasets.labelled_cases import CaseFiles
from ...datasets.volumes import TrainingVolume
from ...metrics.calibration import SMALLEST_PROBABILITY
from ...models.manifest import ModelDescription
from ...networks.segmenter import Segmenter
from ...networks.space_to_depth import Stride
from ..organ_margins import containing_dilations_mm
from ..segmenter import SegmenterRecipe
from ..whole_scan import dice_on_scan, whole_scan_probabilities

_VOXELS = 20_000


@dataclass(frozen=True)
class OutOfFold:
    """The out-of-fold prediction of one case.

    Attributes:
        dice: Dice of each organ, 0..1, NaN if absent from the ground truth, in the geometry of the scan.
        log_probabilities: (classes, n) float32 at random voxels of the body.
        labels: (n,) uint8 at these voxels.
        on_trunk: (classes, z, y, x) float16, probabilities averaged to the grid of the trunk.
        truth: (z, y, x) uint8, the expert's labels on the grid of the trunk; None in older files.
        dilations_mm: (classes - 1,) as from `containing_dilations_mm`, on the grid of the network; None in older files.
    """

    dice: NDArray[np.float64]
    log_probabilities: NDArray[np.float32]
    labels: NDArray[np.uint8]
    on_trunk: NDArray[np.float16]
    truth: NDArray[np.uint8] | None = None
    dilations_mm: NDArray[np.float64] | None = None


def predict_out_of_fold(
    network: Segmenter,
    volume: TrainingVolume,
    files: CaseFiles,
    description: ModelDescription,
    recipe: SegmenterRecipe,
    *,
    device: str,
    seed: int = 0,
) -> OutOfFold:
    """Segment a whole scan and compare it with its labels."""
    probabilities = whole_scan_probabilities(network, volume, recipe, device=device)
    chosen = _body_voxels(volume, seed)
    sampled = probabilities.flatten(1)[:, chosen].clamp(min=SMALLEST_PROBABILITY).log()
    labels = pooled_labels(volume.labels, recipe.pool)
    z, y, x = (mm * step for mm, step in zip(volume.spacing_mm, recipe.pool, strict=True))
    return OutOfFold(
        dice=dice_on_scan(probabilities, volume, files, description, recipe.pool),
        log_probabilities=sampled.numpy(),
        labels=volume.labels.flatten()[chosen].numpy(),
        on_trunk=F.avg_pool3d(probabilities, network.stride).half().numpy(),
        truth=pooled_labels(labels, network.stride).numpy(),
        dilations_mm=containing_dilations_mm(
            probabilities.argmax(dim=0).byte().numpy(),
            labels.numpy(),
            classes=description.classes,
            spacing=(z, y, x),
        ),
    )


def pooled_labels(labels: Tensor, steps: Stride) -> Tensor:
    """A label map (z, y, x), uint8, on a grid whose voxels cover `steps` voxels: the label of most of them.

    Of labels with equally many voxels it is the lowest.
    """
    result: Tensor | None = None
    best = torch.empty(0)
    for value in labels.unique().tolist():
        share = F.avg_pool3d((labels == value).float()[None, None], steps)[0, 0]
        if result is None:
            result, best = torch.full_like(share, value, dtype=torch.uint8), share
        else:
            result = torch.where(share > best, torch.full_like(result, value), result)
            best = torch.maximum(best, share)
    assert result is not None
    return result


def _body_voxels(volume: TrainingVolume, seed: int) -> Tensor:
    """Flat indices of up to 20,000 random voxels of tissue."""
    voxels = volume.tissue.flatten().nonzero().flatten()
    generator = torch.Generator().manual_seed(seed)
    return voxels[torch.randperm(len(voxels), generator=generator)[:_VOXELS]]
