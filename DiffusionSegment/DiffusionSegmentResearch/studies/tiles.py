"""Do overlapping tiles agree, and do results show where they meet? Measured on scans, with or without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.models.manifest import ModelDescription
from DiffusionSegmentBackend.models.model import Model, load_model
from DiffusionSegmentBackend.networks.bodypart import normalised
from DiffusionSegmentBackend.networks.precision import autocast
from DiffusionSegmentBackend.pipeline.features import body_box, body_coordinates, padded
from DiffusionSegmentBackend.pipeline.prepare import network_input
from DiffusionSegmentBackend.pipeline.tiling import BLEND_SIGMA, TILE_OVERLAP, tiling_of
from tqdm import tqdm

from .anatomy_scans import scans_in
from .result_file import StudyRow
from .tile_agreement import TileAgreement, tile_agreement

# nnU-Net's.
_SHARP_SIGMA = 0.125


def agreement_on_scan(volume: Volume, model: Model, *, sigma: float = BLEND_SIGMA) -> TileAgreement:
    """Agreement of the tiles of the pre-segmentation of a scan (k, j, i), blended with a Gaussian of `sigma` of a side.

    Raises:
        DiffusionSegmentError: GEOMETRY, INPUT_VALUES.
    """
    grid = model_grid(volume, spacing=model.description.spacing_mm)
    with torch.inference_mode():
        whole = torch.from_numpy(network_input(volume, grid, model.description))
        box = body_box(whole, min_shape=model.tile.voxels)
        image = padded(whole[box][None], tile=model.tile, value=-1.0)[0]
        located = body_coordinates(whole, model)[(slice(None), *box)]
        coordinates = normalised(padded(located, tile=model.tile, value=0.0))

        def predict(_: int, tile: tuple[slice, slice, slice]) -> torch.Tensor:
            seen = image[tile][None, None].to(model.device, memory_format=torch.channels_last_3d)
            with autocast(model.device, model.dtype):
                pyramid = model.pre_segmenter.features(seen, coordinates[(slice(None), *tile)][None].to(model.device))
                return model.pre_segmenter.logits(seen, pyramid).float().softmax(dim=1)[0]

        return tile_agreement(
            replace(tiling_of(image, model.tile), sigma=sigma), predict, channels=model.description.classes
        )


def tiles_study(
    descriptions: Sequence[ModelDescription], data: Sequence[Path]
) -> tuple[list[StudyRow], dict[str, Any]]:
    """A row a model and scan, and the description of the study."""
    rows = []
    for description in descriptions:
        model = load_model(str(description.folder), "auto", with_refiner=False)
        for scan in tqdm(scans_in(data), desc=description.name):
            volume = scan.read()
            measured = agreement_on_scan(volume, model)
            sharp = agreement_on_scan(volume, model, sigma=_SHARP_SIGMA)
            numbers = {
                "Dice of neighbouring tiles": round(measured.dice, 4),
                "seam ratio": round(measured.seam_ratio, 3),
                "seam ratio, sharp blending": round(sharp.seam_ratio, 3),
            }
            rows.append(StudyRow(f"{description.name}, {scan.name}", numbers=numbers))
    described = {
        "order": 14,
        "title": "Seams between tiles",
        "question": "Do overlapping tiles agree, and does the result show where they meet?",
        "protocol": "The pre-segmentation of whole scans. Dice of neighbouring tiles: of their labels where two that "
        "are shifted along one axis overlap, all organs pooled. Seam ratio: boundary faces of the blended labels a "
        "plane within 1.5 voxels of the middle of an overlap, over planes 4 to 12 voxels beside it; 1 means no seam. "
        f"Tiles overlap by {TILE_OVERLAP:g} of a side and are weighted by a Gaussian with a sigma of {BLEND_SIGMA:g} "
        f"of it; sharp blending: {_SHARP_SIGMA:g}.",
        "budget": "no training",
    }
    return rows, described
