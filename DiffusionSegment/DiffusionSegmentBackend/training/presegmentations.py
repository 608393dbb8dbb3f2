"""Probabilities of the probe on training cases, in memory and on disk, for the training of the refiner."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ..datasets.labelled_cases import Case
from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.volume import Box
from ..models.tile_shape import TILE_SIDE, TileShape
from ..networks.backbone import Backbone
from ..networks.bodypart import normalised
from ..networks.probe import Probe
from ..pipeline.tiling import tiling_of

_TILE = TileShape.cube(TILE_SIDE)


def presegment(
    cases: Sequence[Case], backbone: Backbone, probe: Probe, *, device: str = "cpu", bf16: bool = False
) -> list[NDArray[np.float16]]:
    """Probabilities (classes, z, y, x) in half precision for each case; cases must have coordinates."""
    backbone, probe = backbone.to(device), probe.to(device)
    results = []
    for case in tqdm(cases, desc="pre-segmentations"):
        image, coordinates = case.padded(_TILE)
        probabilities = probe_map(image, coordinates, backbone, probe, device=device, bf16=bf16)
        z, y, x = case.image.shape
        results.append(probabilities[:, :z, :y, :x].numpy().astype(np.float16))
    return results


def probe_map(
    image: Tensor, coordinates_mm: Tensor, backbone: Backbone, probe: Probe, *, device: str, bf16: bool
) -> Tensor:
    """Probabilities (classes, z, y, x) of the probe for an image (z, y, x) in -1..1 of at least one tile."""
    coordinates = normalised(coordinates_mm)

    def predict(_: int, box: Box) -> Tensor:
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=bf16):
            tile = image[box][None, None].to(device, memory_format=torch.channels_last_3d)
            logits: Tensor = probe(backbone.features(tile, coordinates[(slice(None), *box)][None].to(device)))
        return logits[0].float().softmax(dim=0)

    with torch.inference_mode():
        tiling = tiling_of(image, _TILE)
        return tiling.blend(predict, channels=probe.classes)


def write_presegmentations(folder: Path, cases: Sequence[Case], probabilities: Sequence[NDArray[np.float16]]) -> None:
    """Write one compressed file per case atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    for case, values in zip(cases, probabilities, strict=True):
        partial = folder / f"{case.name}.partial.npz"
        np.savez_compressed(partial, probabilities=values)
        os.replace(partial, folder / f"{case.name}.npz")


def read_presegmentations(folder: Path, cases: Sequence[Case], classes: int) -> list[NDArray[np.float16]]:
    """Read the files of `write_presegmentations` for these cases.

    Raises:
        DiffusionSegmentError: TRAINING_DATA with the name of the case that is missing, unreadable or of another shape.
    """
    results = []
    for case in cases:
        path = folder / f"{case.name}.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:
                values = stored["probabilities"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DiffusionSegmentError(
                ErrorCode.TRAINING_DATA,
                f"Case {case.name} has no readable pre-segmentation ({path}).",
                hint="Write it with `diffusion-segment presegment`.",
            ) from error
        if values.shape != (classes, *case.image.shape):
            raise DiffusionSegmentError(
                ErrorCode.TRAINING_DATA,
                f"Case {case.name}: its pre-segmentation has the shape {values.shape}, "
                f"the model needs {(classes, *case.image.shape)}.",
                hint="Write it with the same model file.",
            )
        results.append(values.astype(np.float16))
    return results
