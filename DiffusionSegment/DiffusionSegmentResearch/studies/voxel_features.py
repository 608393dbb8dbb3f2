"""Frozen features of a backbone: voxels of augmented patches to train probes on, whole scans, tile by tile, to test on.

A voxel's descriptor begins with what needs no network, its intensity and its body coordinates: group norm takes the
mean of a patch away, so absolute values would be lost, and every backbone has to add something to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from DiffusionSegmentBackend.datasets.labelled_cases import TISSUE_THRESHOLD, Case
from DiffusionSegmentBackend.datasets.patches import patch_batches
from DiffusionSegmentBackend.diffusion.noise import noise_field, training_noise
from DiffusionSegmentBackend.networks.backbone import Backbone, descriptors_at
from DiffusionSegmentBackend.networks.bodypart import normalised
from DiffusionSegmentBackend.networks.precision import autocast, inference_dtype
from numpy.typing import NDArray
from torch import Tensor

_TILE = 64
_MARGIN = 8
_PER_CLASS = 40
_BACKGROUND = 250


@dataclass(frozen=True)
class FeatureSource:
    """A frozen backbone and the t (1..1000) at which it is read; None reads the clean scan. No backbone: raw values.

    Computed in bfloat16 where the device has it.
    """

    backbone: Backbone | None
    timestep: int | None = None
    coordinates: bool = True
    seed: int = 0

    @property
    def channels(self) -> tuple[int, ...]:
        """Width of the raw values, then of each level."""
        raw = 4 if self.coordinates else 1
        return (raw, *(self.backbone.channels if self.backbone is not None else ()))

    def descriptors(self, tile: Tile, voxels: NDArray) -> Tensor:
        """Descriptors (N, sum of channels) in half precision of voxels (N, 3) of a tile."""
        z, y, x = voxels.T
        raw = torch.cat([tile.image[0], tile.coordinates[0]])[: self.channels[0], z, y, x].T
        if self.backbone is None:
            return raw.half()
        return torch.cat([raw, descriptors_at(self._pyramid(tile), torch.from_numpy(voxels)).float()], dim=1).half()

    def _pyramid(self, tile: Tile) -> list[Tensor]:
        assert self.backbone is not None
        device = tile.image.device
        with torch.inference_mode(), autocast(device, inference_dtype(device)):
            if self.timestep is None:
                return self.backbone.features(tile.image, tile.coordinates)
            return self.backbone.noisy_features(tile.image, tile.coordinates, timestep=self.timestep, noise=tile.noise)


@dataclass(frozen=True)
class Tile:
    """A piece of a scan: image and noise (1, 1, z, y, x), coordinates (1, 3, z, y, x) normalised."""

    image: Tensor
    coordinates: Tensor
    noise: Tensor


@dataclass(frozen=True)
class VoxelTable:
    """Sampled voxels of one case: descriptors (N, C) half, labels (N,), and how many voxels each stands for (N,)."""

    descriptors: Tensor
    labels: Tensor
    weights: Tensor


def tiles(case: Case, source: FeatureSource) -> Iterator[tuple[Tile, NDArray, NDArray]]:
    """Tiles of a scan, and the body voxels (N, 3) of each one's core, within the tile and within the case."""
    if case.coordinates is None:
        raise ValueError(f"case {case.name} has no body coordinates")
    size = case.image.shape
    core = _TILE - 2 * _MARGIN
    far = [(-n) % core + _MARGIN for n in size]
    padding = [a for n in reversed(far) for a in (_MARGIN, n)]
    image = F.pad(torch.from_numpy(case.image)[None], padding, value=-1.0)
    coordinates = F.pad(normalised(torch.from_numpy(case.coordinates).float())[None], padding, mode="replicate")[0]
    shape = (image.shape[1], image.shape[2], image.shape[3])
    noise = noise_field(shape, channels=1, seed=source.seed, sample=0, step=0) if source.timestep else image
    body = image[0] > TISSUE_THRESHOLD
    for start in np.ndindex(*[-(-n // core) for n in size]):
        place = tuple(slice(s * core, s * core + _TILE) for s in start)
        inside = np.argwhere(body[place].numpy()[(slice(_MARGIN, -_MARGIN),) * 3]) + _MARGIN
        if len(inside):
            cut = (slice(None), *place)
            clean = image[cut][None].contiguous(memory_format=torch.channels_last_3d)
            yield (
                Tile(clean, coordinates[cut][None], noise[cut][None]),
                inside,
                inside + np.array(start) * core - _MARGIN,
            )


def training_table(case: Case, source: FeatureSource, *, classes: int, patches: int, seed: int = 0) -> VoxelTable:
    """Voxels of `patches` augmented patches around voxels of every class, some of each class that a patch shows."""
    random = np.random.default_rng(seed)
    batches = patch_batches([case], classes=classes, patch=_TILE, batch=1, augment=True, seed=seed, workers=0)
    generator = torch.Generator().manual_seed(seed)
    parts: list[tuple[Tensor, NDArray, NDArray]] = []
    for _ in range(patches):
        item = next(batches)
        labels = item["labels"][0, 0].numpy()
        weights = _sampled(labels, item["image"][0, 0].numpy() > TISSUE_THRESHOLD, random)
        voxels = np.argwhere(weights > 0)
        tile = Tile(
            item["image"].contiguous(memory_format=torch.channels_last_3d),
            item["coordinates"],
            training_noise(item["image"], generator),
        )
        parts.append((source.descriptors(tile, voxels), labels[tuple(voxels.T)], weights[tuple(voxels.T)]))
    return _table(parts)


def _sampled(labels: NDArray, body: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.float32]:
    """How many voxels of its class each chosen voxel stands for; 0 for those not chosen."""
    weights = np.zeros(labels.shape, dtype=np.float32)
    for value in np.unique(labels[body]):
        places = np.flatnonzero((labels == value) & body)
        count = min(len(places), _BACKGROUND if value == 0 else _PER_CLASS)
        weights.ravel()[random.choice(places, count, replace=False)] = len(places) / count
    return weights


def whole_scan_table(case: Case, source: FeatureSource, *, stride: int = 2) -> VoxelTable:
    """Every `stride`-th body voxel along z and y: enough to tell Dice, a fraction of the work."""
    parts: list[tuple[Tensor, NDArray, NDArray]] = []
    for tile, local, place in tiles(case, source):
        chosen = (place[:, 0] % stride == 0) & (place[:, 1] % stride == 0)
        labels = case.labels[tuple(place[chosen].T)]
        parts.append((source.descriptors(tile, local[chosen]), labels, np.ones(len(labels), np.float32)))
    return _table(parts)


def _table(parts: Sequence[tuple[Tensor, NDArray, NDArray]]) -> VoxelTable:
    return VoxelTable(
        torch.cat([p[0] for p in parts]),
        torch.from_numpy(np.concatenate([p[1] for p in parts])).long(),
        torch.from_numpy(np.concatenate([p[2] for p in parts])),
    )
