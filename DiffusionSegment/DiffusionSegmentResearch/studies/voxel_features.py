"""Frozen features of voxels: of augmented patches to train probes on, and of whole scans, tile by tile, to test them.

The descriptor of a voxel begins with its intensity and body coordinates. Group norm removes the mean of a patch, so the
features alone would lack absolute values; and a backbone is compared by what it adds to them.
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

# Descriptors, labels and weights of the sampled voxels of one patch.
_TablePart = tuple[Tensor, NDArray[np.uint8], NDArray[np.float32]]


@dataclass(frozen=True)
class FeatureSource:
    """Where descriptors come from; computed in bfloat16 where the device supports it.

    Attributes:
        backbone: a frozen backbone; None for intensity and coordinates alone.
        timestep: t (1..1000) of the noise on its input; None for the clean scan.
        coordinates: whether body coordinates are part of the descriptor.
        seed: of the noise.
    """

    backbone: Backbone | None
    timestep: int | None = None
    coordinates: bool = True
    seed: int = 0

    @property
    def channels(self) -> tuple[int, ...]:
        """Number of channels: intensity and coordinates, then each level of the backbone."""
        raw = 4 if self.coordinates else 1
        return (raw, *(self.backbone.channels if self.backbone is not None else ()))

    def descriptors(self, tile: PatchTensors, voxels: NDArray[np.intp]) -> Tensor:
        """Descriptors (N, sum of channels) in half precision of voxels (N, 3) of a tile."""
        z, y, x = voxels.T
        raw = torch.cat([tile.image[0], tile.coordinates[0]])[: self.channels[0], z, y, x].T
        if self.backbone is None:
            return raw.half()
        return torch.cat([raw, descriptors_at(self._pyramid(tile), torch.from_numpy(voxels)).float()], dim=1).half()

    def _pyramid(self, tile: PatchTensors) -> list[Tensor]:
        assert self.backbone is not None
        device = tile.image.device
        with torch.inference_mode(), autocast(device, inference_dtype(device)):
            if self.timestep is None:
                return self.backbone.features(tile.image, tile.coordinates)
            return self.backbone.noisy_features(tile.image, tile.coordinates, timestep=self.timestep, noise=tile.noise)


@dataclass(frozen=True)
class PatchTensors:
    """A patch of a scan: image and noise (1, 1, z, y, x), and normalised coordinates (1, 3, z, y, x)."""

    image: Tensor
    coordinates: Tensor
    noise: Tensor


@dataclass(frozen=True)
class VoxelTable:
    """Sampled voxels of one case: descriptors (N, C) in half precision, labels (N,) and weights (N,).

    The weight of a voxel is the number of voxels that it represents.
    """

    descriptors: Tensor
    labels: Tensor
    weights: Tensor


def tiles(case: Case, source: FeatureSource) -> Iterator[tuple[PatchTensors, NDArray[np.intp], NDArray[np.intp]]]:
    """Tiles of a scan, each with the indices (N, 3) of the body voxels of its core in the tile and in the case."""
    if case.coordinates is None:
        raise ValueError(f"case {case.name} has no body coordinates")
    size = case.image.shape
    core = _TILE - 2 * _MARGIN
    ends = [(-n) % core + _MARGIN for n in size]
    padding = [a for n in reversed(ends) for a in (_MARGIN, n)]
    image = F.pad(torch.from_numpy(case.image)[None], padding, value=-1.0)
    coordinates = F.pad(normalised(torch.from_numpy(case.coordinates).float())[None], padding, mode="replicate")[0]
    shape = (image.shape[1], image.shape[2], image.shape[3])
    noise = noise_field(shape, channels=1, seed=source.seed, sample=0, step=0) if source.timestep else image
    body = image[0] > TISSUE_THRESHOLD
    for start in np.ndindex(*[-(-n // core) for n in size]):
        box = tuple(slice(s * core, s * core + _TILE) for s in start)
        inside = np.argwhere(body[box].numpy()[(slice(_MARGIN, -_MARGIN),) * 3]) + _MARGIN
        if len(inside):
            cut = (slice(None), *box)
            clean = image[cut][None].contiguous(memory_format=torch.channels_last_3d)
            yield (
                PatchTensors(clean, coordinates[cut][None], noise[cut][None]),
                inside,
                inside + np.array(start) * core - _MARGIN,
            )


def training_table(case: Case, source: FeatureSource, *, classes: int, patches: int, seed: int = 0) -> VoxelTable:
    """Sampled voxels of every class in `patches` augmented patches."""
    random = np.random.default_rng(seed)
    batches = patch_batches([case], classes=classes, patch=_TILE, batch=1, augment=True, seed=seed, workers=0)
    generator = torch.Generator().manual_seed(seed)
    parts: list[_TablePart] = []
    for _ in range(patches):
        item = next(batches)
        labels = item["labels"][0, 0].numpy()
        weights = _sampled(labels, item["image"][0, 0].numpy() > TISSUE_THRESHOLD, random)
        voxels = np.argwhere(weights > 0)
        tile = PatchTensors(
            item["image"].contiguous(memory_format=torch.channels_last_3d),
            item["coordinates"],
            training_noise(item["image"], generator),
        )
        parts.append((source.descriptors(tile, voxels), labels[tuple(voxels.T)], weights[tuple(voxels.T)]))
    return _table(parts)


def _sampled(labels: NDArray[np.uint8], body: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.float32]:
    """The weight of each sampled voxel: the number of voxels of its class that it represents; 0 for all others."""
    weights = np.zeros(labels.shape, dtype=np.float32)
    for value in np.unique(labels[body]):
        indices = np.flatnonzero((labels == value) & body)
        count = min(len(indices), _BACKGROUND if value == 0 else _PER_CLASS)
        weights.ravel()[random.choice(indices, count, replace=False)] = len(indices) / count
    return weights


def whole_scan_table(case: Case, source: FeatureSource, *, stride: int = 2) -> VoxelTable:
    """Every `stride`-th body voxel along z and y, which suffices to estimate Dice."""
    parts: list[_TablePart] = []
    for tile, in_tile, in_case in tiles(case, source):
        chosen = (in_case[:, 0] % stride == 0) & (in_case[:, 1] % stride == 0)
        labels = case.labels[tuple(in_case[chosen].T)]
        parts.append((source.descriptors(tile, in_tile[chosen]), labels, np.ones(len(labels), np.float32)))
    return _table(parts)


def _table(parts: Sequence[_TablePart]) -> VoxelTable:
    return VoxelTable(
        torch.cat([p[0] for p in parts]),
        torch.from_numpy(np.concatenate([p[1] for p in parts])).long(),
        torch.from_numpy(np.concatenate([p[2] for p in parts])),
    )
