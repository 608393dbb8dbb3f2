"""Frozen features of a whole scan, level by level, as researchers, similar voxels and teaching read them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..diffusion.noise import noise_field
from ..imaging.volume import Grid, Volume, coarser_grid, model_grid
from ..models.model import Model
from ..models.tile_shape import Sides
from ..networks.bodypart import normalised
from ..networks.precision import autocast
from .features import body_box, body_coordinates, padded
from .prepare import network_input
from .progress import Progress, silent
from .region import Box
from .tiling import Tiling


@dataclass(frozen=True)
class DenseFeatures:
    """Features of the body's box on the trunk's grid: from voxel `offset` (z, y, x) of `grid` on, `inside` voxels.

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
    """All levels of the features of a scan (k, j, i) in its own values, clean or as x_t at `timestep` of 1000.

    Raises:
        DiffusionSegmentError: GEOMETRY, INPUT_VALUES; whatever `progress` raises.
    """
    grid = model_grid(volume, spacing=model.description.spacing_mm)
    tile, multiples = model.tile, model.pre_segmenter.multiples
    with torch.inference_mode():
        image = torch.from_numpy(network_input(volume, grid, model.description))
        coordinates = body_coordinates(image, model)
        box = _from_whole_voxels(body_box(image, least=tile.voxels), tile.stride)
        image = _whole_cells(padded(image[box][None], tile=tile, value=-1.0), multiples, -1.0)[0]
        coordinates = _whole_cells(padded(coordinates[(slice(None), *box)], tile=tile, value=0.0), multiples, 0.0)
        levels = dense_features(image, coordinates, model, timestep=timestep, seed=seed, progress=progress)
        return DenseFeatures(
            levels=levels,
            image=F.avg_pool3d(image[None, None], tile.stride)[0, 0],
            coordinates_mm=F.avg_pool3d(coordinates[None], tile.stride)[0],
            grid=coarser_grid(grid, tile.stride),
            offset=tile.on_trunk([s.start for s in box]),
            inside=tile.on_trunk([s.stop - s.start + step - 1 for s, step in zip(box, tile.stride, strict=True)]),
        )


def _from_whole_voxels(box: Box, stride: Sides) -> Box:
    """The box from the beginning of its first voxel on the trunk's grid on."""
    z, y, x = (slice(s.start // step * step, s.stop) for s, step in zip(box, stride, strict=True))
    return z, y, x


def dense_features(
    image: Tensor,
    coordinates_mm: Tensor,
    model: Model,
    *,
    timestep: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Tensor]:
    """All levels (channels, z / 2^l, ...) on the trunk's grid, in half precision, of an image in -1..1 on the model's.

    They are the mean over tiles, weighted by `Tiling.weight`. Sides must be multiples of the features' coarsest cell,
    and at least one tile.
    """
    shape = (image.shape[0], image.shape[1], image.shape[2])
    coordinates = normalised(coordinates_mm)
    noise = noise_field(shape, channels=1, seed=seed, sample=0, step=0)[0] if timestep else image
    network = model.pre_segmenter
    tiling = Tiling(shape, model.tile.voxels, step=network.multiples)
    sides = model.tile.on_trunk(shape)
    sums = [torch.zeros((c, *(side // 2**level for side in sides))) for level, c in enumerate(network.channels)]
    weights = [
        F.avg_pool3d(tiling.weight[None, None], [step * 2**level for step in model.tile.stride])[0, 0]
        for level in range(len(sums))
    ]
    totals = [torch.zeros(one.shape[1:]) for one in sums]
    for index, place in enumerate(tiling.tiles):
        progress("features", index, len(tiling.tiles))
        tile = image[place][None, None].to(model.device, memory_format=torch.channels_last_3d)
        known = coordinates[(slice(None), *place)][None].to(model.device)
        with autocast(model.device, model.dtype):
            if timestep is None:
                pyramid = network.features(tile, known)
            else:
                fresh = noise[place][None, None].to(model.device)
                pyramid = network.noisy_features(tile, known, timestep=timestep, noise=fresh)
        for level, features in enumerate(pyramid):
            # Sides and beginnings of tiles are multiples of the coarsest cell, so no cell straddles two tiles.
            steps = [step * 2**level for step in model.tile.stride]
            cells = tuple(slice(s.start // step, s.stop // step) for s, step in zip(place, steps, strict=True))
            sums[level][(slice(None), *cells)] += weights[level] * features[0].float().cpu()
            totals[level][cells] += weights[level]
    progress("features", len(tiling.tiles), len(tiling.tiles))
    return [(one / total).half() for one, total in zip(sums, totals, strict=True)]


def _whole_cells(tensor: Tensor, multiples: Sides, value: float) -> Tensor:
    """(channels, z, y, x) grown at the far end to multiples of the coarsest cell."""
    sides = zip(tensor.shape[:0:-1], reversed(multiples), strict=True)
    return F.pad(tensor, [amount for n, multiple in sides for amount in (0, -n % multiple)], value=value)
