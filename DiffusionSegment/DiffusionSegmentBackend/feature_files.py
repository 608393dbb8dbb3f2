"""Dense features of a scan on disk, for researchers who bring their own head."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from . import __version__
from .diffusion.noise import noise_field
from .errors import DiffusionSegmentError, ErrorCode
from .networks.bodypart import normalised
from .pipeline.features import body_box, body_coordinates, padded
from .pipeline.model import Model, load_model, weights_sha256
from .pipeline.prepare import windowed
from .pipeline.segment import TILE_OVERLAP, TILE_SIDE, memory_errors
from .pipeline.tiling import Tiling
from .result_folder import check_writable, staged_folder
from .volume import model_grid
from .volume_io import read_volume

_TIMESTEPS = 1000


def write_features_of(
    source: str, folder: Path, *, model_name: str, timestep: int | None = None, device: str = "auto", seed: int = 0
) -> None:
    """Write features.npz and features.json of one scan into `folder`.

    features.npz holds level_0 (finest) to level_4, each (channels, z, y, x) in half precision, and coordinates_mm (3,
    z, y, x); features.json the geometry of each level, the t and the model.

    Raises:
        DiffusionSegmentError: OPTION for a t outside 1..1000; whatever is wrong with scan, model or folder.
    """
    if timestep is not None and not 1 <= timestep <= _TIMESTEPS:
        raise DiffusionSegmentError(ErrorCode.OPTION, f"t is {timestep}.", hint=f"Choose 1 to {_TIMESTEPS}.")
    check_writable(folder)
    volume = read_volume(source)
    model = load_model(model_name, device)
    grid = model_grid(volume, spacing=model.description.spacing_mm)
    with torch.inference_mode(), memory_errors():
        image = torch.from_numpy(windowed(grid.to_grid(volume.array), model.description.window))
        coordinates = body_coordinates(image, model)
        box = body_box(image, least=TILE_SIDE)
        image = _whole_cells(padded(image[box][None], least=TILE_SIDE, value=-1.0), model.backbone.multiple, -1.0)
        coordinates = _whole_cells(
            padded(coordinates[(slice(None), *box)], least=TILE_SIDE, value=0.0), model.backbone.multiple, 0.0
        )
        levels = dense_features(image[0], coordinates, model, timestep=timestep, seed=seed)
    start = np.array([s.start for s in box])
    record = {
        "software": __version__,
        "model": model.description.name,
        "sha256": weights_sha256(model.description),
        "timestep": timestep if timestep is not None else 0,
        "told_timestep": timestep if timestep is not None else model.backbone.feature_timestep,
        "seed": seed,
        "levels": [
            {
                "name": f"level_{n}",
                "spacing_mm": [float(s) * 2**n for s in grid.spacing],
                "first_voxel_lps_mm": [float(v) for v in grid.lps(start + (2**n - 1) / 2)],
                "axes_lps": (grid.index_to_lps[:3, :3] / np.linalg.norm(grid.index_to_lps[:3, :3], axis=0)).tolist(),
            }
            for n in range(len(levels))
        ],
    }
    with staged_folder(folder) as staging:
        arrays = {f"level_{n}": level.numpy() for n, level in enumerate(levels)}
        arrays["coordinates_mm"] = coordinates.half().numpy()
        np.savez_compressed(staging / "features.npz", allow_pickle=False, **arrays)
        (staging / "features.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {folder}: {', '.join(str(tuple(level.shape)) for level in levels)}.")


def dense_features(
    image: torch.Tensor, coordinates_mm: torch.Tensor, model: Model, *, timestep: int | None, seed: int
) -> list[torch.Tensor]:
    """All levels (channels, z / 2^l, ...) in half precision of an image (z, y, x) in -1..1, blended over tiles.

    Sides must be multiples of the backbone's coarsest cell and at least one tile.
    """
    shape = (image.shape[0], image.shape[1], image.shape[2])
    coordinates = normalised(coordinates_mm)
    noise = noise_field(shape, channels=1, seed=seed, sample=0, step=0)[0] if timestep else image
    tiling = Tiling(shape, TILE_SIDE, TILE_OVERLAP)
    sums = [torch.zeros((c, *(side // 2**level for side in shape))) for level, c in enumerate(model.backbone.channels)]
    counts = [torch.zeros(total.shape[1:]) for total in sums]
    for place in tiling.tiles:
        tile = image[place][None, None].to(model.device, memory_format=torch.channels_last_3d)
        known = coordinates[(slice(None), *place)][None].to(model.device)
        if timestep is None:
            pyramid = model.backbone.features(tile, known)
        else:
            fresh = noise[place][None, None].to(model.device)
            pyramid = model.backbone.noisy_features(tile, known, timestep=timestep, noise=fresh)
        for level, features in enumerate(pyramid):
            # Sides and tiles are multiples of the coarsest cell, so no cell straddles two tiles.
            cells = tuple(slice(s.start // 2**level, s.stop // 2**level) for s in place)
            sums[level][(slice(None), *cells)] += features[0].float().cpu()
            counts[level][cells] += 1
    return [(total / count).half() for total, count in zip(sums, counts, strict=True)]


def _whole_cells(tensor: torch.Tensor, multiple: int, value: float) -> torch.Tensor:
    """(channels, z, y, x) grown at the far end to multiples of the coarsest cell."""
    amounts = [amount for n in reversed(tensor.shape[1:]) for amount in (0, -n % multiple)]
    return torch.nn.functional.pad(tensor, amounts, value=value)
