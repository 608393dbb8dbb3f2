"""Frozen features of a whole scan, by level, for export, the similarity map and fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..diffusion.noise import noise_field
from ..imaging.volume import Box, Grid, Volume, coarser_grid, model_grid
from ..models.model import Model
from ..models.tile_shape import Sides, TileShape
from ..networks.bodypart import normalised
from ..networks.precision import autocast
from .features import body_box, body_coordinates, padded
from .prepare import network_input
from .progress import Progress, silent
from .tiling import Tiling


@dataclass(frozen=True)
class DenseFeatures:
    """Features of the body's box on the trunk's grid.

    Levels, image and coordinates are padded at the far end to multiples of the coarsest level's voxels.

    Attributes:
        levels: level l is (channels[l], z / 2^l, y / 2^l, x / 2^l), in half precision on the CPU.
        image: the networks' input (z, y, x), -1..1.
        coordinates_mm: body coordinates (3, z, y, x).
        grid: the trunk's grid over the scan.
        offset: the box's first voxel (z, y, x) of the grid.
        inside: shape (z, y, x) of the box without padding.
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
    """All levels of the features of a scan (k, j, i) in its own values, without noise or as x_t at `timestep` of 1000.

    Raises:
        DiffusionSegmentError: GEOMETRY, INPUT_VALUES; whatever `progress` raises.
    """
    grid = model_grid(volume, spacing=model.description.spacing_mm)
    tile, multiples = model.tile, model.pre_segmenter.multiples
    with torch.inference_mode():
        image = torch.from_numpy(network_input(volume, grid, model.description))
        coordinates = body_coordinates(image, model)
        box = _aligned_to_trunk(body_box(image, min_shape=tile.voxels), tile.stride)
        image = _padded_to(padded(image[box][None], tile=tile, value=-1.0), multiples, -1.0)[0]
        coordinates = _padded_to(padded(coordinates[(slice(None), *box)], tile=tile, value=0.0), multiples, 0.0)
        levels = dense_features(image, coordinates, model, timestep=timestep, seed=seed, progress=progress)
        return DenseFeatures(
            levels=levels,
            image=F.avg_pool3d(image[None, None], tile.stride)[0, 0],
            coordinates_mm=F.avg_pool3d(coordinates[None], tile.stride)[0],
            grid=coarser_grid(grid, tile.stride),
            offset=tile.on_trunk([s.start for s in box]),
            inside=tile.on_trunk([s.stop - s.start + step - 1 for s, step in zip(box, tile.stride, strict=True)]),
        )


def _aligned_to_trunk(box: Box, stride: Sides) -> Box:
    """The box with its start moved to the beginning of a voxel of the trunk's grid."""
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

    They are the mean over tiles, weighted by `Tiling.weight`. The sides of the image must be multiples of the coarsest
    level's voxels, and at least one tile.
    """
    shape = (image.shape[0], image.shape[1], image.shape[2])
    coordinates = normalised(coordinates_mm)
    noise = noise_field(shape, channels=1, seed=seed, sample=0, step=0)[0] if timestep else image
    network = model.pre_segmenter
    tiling = Tiling(shape, model.tile.voxels, step=network.multiples)
    sums = _LevelSums(tiling, network.channels, model.tile)
    for index, box in enumerate(tiling.tiles):
        progress("features", index, len(tiling.tiles))
        tile = image[box][None, None].to(model.device, memory_format=torch.channels_last_3d)
        tile_coordinates = coordinates[(slice(None), *box)][None].to(model.device)
        with autocast(model.device, model.dtype):
            if timestep is None:
                pyramid = network.features(tile, tile_coordinates)
            else:
                tile_noise = noise[box][None, None].to(model.device)
                pyramid = network.noisy_features(tile, tile_coordinates, timestep=timestep, noise=tile_noise)
        sums.add(box, pyramid)
    progress("features", len(tiling.tiles), len(tiling.tiles))
    return sums.means()


class _LevelSums:
    """Weighted sums over tiles of the levels of a feature pyramid."""

    def __init__(self, tiling: Tiling, channels: Sequence[int], tile: TileShape) -> None:
        sides = tile.on_trunk(tiling.shape)
        # Voxels (z, y, x) of the model's grid that a voxel of each level covers.
        self._strides = [[step * 2**level for step in tile.stride] for level in range(len(channels))]
        self._sums = [torch.zeros((c, *(side // 2**level for side in sides))) for level, c in enumerate(channels)]
        self._weights = [F.avg_pool3d(tiling.weight[None, None], stride)[0, 0] for stride in self._strides]
        self._totals = [torch.zeros(level.shape[1:]) for level in self._sums]

    def add(self, box: Box, pyramid: Sequence[Tensor]) -> None:
        """Add the features of one tile, whose box consists of whole voxels of the coarsest level."""
        for level, features in enumerate(pyramid):
            inside = tuple(
                slice(s.start // step, s.stop // step) for s, step in zip(box, self._strides[level], strict=True)
            )
            self._sums[level][(slice(None), *inside)] += self._weights[level] * features[0].float().cpu()
            self._totals[level][inside] += self._weights[level]

    def means(self) -> list[Tensor]:
        """Weighted means of all levels in half precision."""
        return [(level / total).half() for level, total in zip(self._sums, self._totals, strict=True)]


def _padded_to(tensor: Tensor, multiples: Sides, value: float) -> Tensor:
    """A tensor (channels, z, y, x) padded at the far end to multiples (z, y, x) of voxels."""
    sides = zip(tensor.shape[:0:-1], reversed(multiples), strict=True)
    return F.pad(tensor, [amount for n, multiple in sides for amount in (0, -n % multiple)], value=value)
