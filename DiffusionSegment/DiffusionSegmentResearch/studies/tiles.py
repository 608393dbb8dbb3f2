"""`study tiles`: whether overlapping tiles agree, and whether the blended result has seams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from DiffusionSegmentBackend.imaging.volume import Box, Volume
from DiffusionSegmentBackend.models.model import Model, load_model
from DiffusionSegmentBackend.networks.bodypart import normalised
from DiffusionSegmentBackend.networks.precision import autocast
from DiffusionSegmentBackend.pipeline.tiling import BLEND_SIGMA, TILE_OVERLAP, tiling_of
from torch import Tensor
from tqdm import tqdm

from .anatomy_scans import scans_in
from .prepared_scan import prepare_scan
from .result_file import StudyDescription, StudyResult, StudyRow
from .study import StudyRequest
from .tile_agreement import TileAgreement, tile_agreement

# The default of nnU-Net.
_SHARP_SIGMA = 0.125


def study(request: StudyRequest) -> StudyResult:
    """A row for each model and scan; the scans need no labels."""
    rows = []
    for description in request.descriptions:
        model = load_model(str(description.folder), "auto", with_refiner=False)
        for scan in tqdm(scans_in(request.data), desc=description.name):
            smooth, sharp = agreement_on_scan(scan.read(), model, sigmas=(BLEND_SIGMA, _SHARP_SIGMA))
            numbers = {
                "Dice of neighbouring tiles": round(smooth.dice, 4),
                "seam ratio": round(smooth.seam_ratio, 3),
                "seam ratio, sharp blending": round(sharp.seam_ratio, 3),
            }
            rows.append(StudyRow(f"{description.name}, {scan.name}", numbers=numbers))
    return StudyResult(rows, _DESCRIPTION)


_DESCRIPTION = StudyDescription(
    order=14,
    title="Seams between tiles",
    question="Do overlapping tiles agree, and does the result have seams?",
    protocol="The pre-segmentation of whole scans. Dice of neighbouring tiles: of their labels where two that "
    "are shifted along one axis overlap, all organs pooled. Seam ratio: boundary faces of the blended labels a "
    "plane within 1.5 voxels of the middle of an overlap, over planes 4 to 12 voxels beside it; 1 means no seam. "
    f"Tiles overlap by {TILE_OVERLAP:g} of a side and are weighted by a Gaussian with a sigma of {BLEND_SIGMA:g} "
    f"of it; sharp blending: {_SHARP_SIGMA:g}.",
    budget="no training",
)


def agreement_on_scan(volume: Volume, model: Model, *, sigmas: Sequence[float] = (BLEND_SIGMA,)) -> list[TileAgreement]:
    """Agreement of the tiles of the pre-segmentation of a scan (k, j, i), for each Gaussian of `sigmas` of a side.

    The networks run once on each tile.

    Raises:
        DiffusionSegmentError: GEOMETRY, INPUT_VALUES.
    """
    with torch.inference_mode():
        image, coordinates_mm = prepare_scan(volume, model).tile_input(model)
        coordinates = normalised(coordinates_mm)
        tiling = tiling_of(image, model.tile)
        probabilities = [_tile_probabilities(model, image, coordinates, tile) for tile in tiling.tiles]
        return [
            tile_agreement(
                replace(tiling, sigma=sigma), lambda n, _: probabilities[n], channels=model.description.classes
            )
            for sigma in sigmas
        ]


def _tile_probabilities(model: Model, image: Tensor, coordinates: Tensor, tile: Box) -> Tensor:
    """Pre-segmentation (classes, z, y, x) of one tile."""
    patch = image[tile][None, None].to(model.device, memory_format=torch.channels_last_3d)
    with autocast(model.device, model.dtype):
        pyramid = model.pre_segmenter.features(patch, coordinates[(slice(None), *tile)][None].to(model.device))
        return model.pre_segmenter.logits(patch, pyramid).float().softmax(dim=1)[0].cpu()
