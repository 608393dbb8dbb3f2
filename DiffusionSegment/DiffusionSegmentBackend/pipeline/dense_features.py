"""Frozen backbone features of a whole scan, level by level, as researchers, similar voxels and teaching read them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.noise import noise_field
from ..networks.bodypart import normalised
from ..networks.precision import autocast
from ..volume import Grid, Volume, model_grid
from .features import body_box, body_coordinates, padded
from .model import Model
from .prepare import windowed
from .progress import Progress, silent
from .tiling import TILE_OVERLAP, TILE_SIDE, Tiling


@dataclass(frozen=True)
class DenseFeatures:
    """Features of the body's box, which begins at voxel `offset` (z, y, x) of `grid` and is `inside` voxels large.

    `levels[l]` is (channels[l], z / 2^l, y / 2^l, x / 2^l) in half precision on the CPU, `image` (z, y, x) in -1..1,
    `coordinates_mm` (3, z, y, x). All three are padded at the far end to whole cells of the coarsest level.
    """

    levels: list[Tensor]
    image: Tensor
    coordinates_mm: Tensor
    grid: Grid
    offset: tuple[int, int, int]
    inside: tuple[int, int, int]


def scan_features(
    volume: Volume, model: Model, *, timestep: int | None = None, seed: int = 0, progress: Progress = silent
) -> DenseFeatures:
    """All levels of the features of a scan in HU (k, j, i), of the clean scan or of x_t at `timestep` of 1000.

    Raises:
        DiffusionSegmentError: GEOMETRY; whatever `progress` raises.
    """
    grid = model_grid(volume, spacing=model.description.spacing_mm)
    with torch.inference_mode():
        image = torch.from_numpy(windowed(grid.to_grid(volume.array), model.description.window))
        coordinates = body_coordinates(image, model)
        box = body_box(image, least=TILE_SIDE)
        image = _whole_cells(padded(image[box][None], least=TILE_SIDE, value=-1.0), model.backbone.multiple, -1.0)[0]
        coordinates = _whole_cells(
            padded(coordinates[(slice(None), *box)], least=TILE_SIDE, value=0.0), model.backbone.multiple, 0.0
        )
        levels = dense_features(image, coordinates, model, timestep=timestep, seed=seed, progress=progress)
    return DenseFeatures(
        levels=levels,
        image=image,
        coordinates_mm=coordinates,
        grid=grid,
        offset=(box[0].start, box[1].start, box[2].start),
        inside=(box[0].stop - box[0].start, box[1].stop - box[1].start, box[2].stop - box[2].start),
    )


def dense_features(
    image: Tensor,
    coordinates_mm: Tensor,
    model: Model,
    *,
    timestep: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Tensor]:
    """All levels (channels, z / 2^l, ...) in half precision of an image (z, y, x) in -1..1, the mean over tiles.

    Sides must be multiples of the backbone's coarsest cell and at least one tile.
    """
    shape = (image.shape[0], image.shape[1], image.shape[2])
    coordinates = normalised(coordinates_mm)
    noise = noise_field(shape, channels=1, seed=seed, sample=0, step=0)[0] if timestep else image
    tiling = Tiling(shape, TILE_SIDE, TILE_OVERLAP)
    sums = [torch.zeros((c, *(side // 2**level for side in shape))) for level, c in enumerate(model.backbone.channels)]
    counts = [torch.zeros(total.shape[1:]) for total in sums]
    for index, place in enumerate(tiling.tiles):
        progress("features", index, len(tiling.tiles))
        tile = image[place][None, None].to(model.device, memory_format=torch.channels_last_3d)
        known = coordinates[(slice(None), *place)][None].to(model.device)
        with autocast(model.device, model.dtype):
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
    progress("features", len(tiling.tiles), len(tiling.tiles))
    return [(total / count).half() for total, count in zip(sums, counts, strict=True)]


def _whole_cells(tensor: Tensor, multiple: int, value: float) -> Tensor:
    """(channels, z, y, x) grown at the far end to multiples of the coarsest cell."""
    amounts = [amount for n in reversed(tensor.shape[1:]) for amount in (0, -n % multiple)]
    return torch.nn.functional.pad(tensor, amounts, value=value)
