"""Frozen features of a backbone, tile by tile: a table of sampled voxels to train on, whole scans to test on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..diffusion.noise import noise_field
from ..networks.backbone import Backbone, descriptors_at
from ..networks.bodypart import normalised
from ..training.data import Case

_TILE = 64
_MARGIN = 8
_BODY_THRESHOLD = -0.95


@dataclass(frozen=True)
class FeatureSource:
    """A frozen backbone and the t (1..1000) at which it is read; None reads the clean scan."""

    backbone: Backbone
    timestep: int | None = None
    bf16: bool = True
    seed: int = 0

    def pyramid(self, image: Tensor, coordinates: Tensor, noise: Tensor) -> list[Tensor]:
        """Features of one tile: image (1, 1, z, y, x), coordinates (1, 3, z, y, x), noise like the image."""
        with torch.inference_mode(), torch.autocast(image.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            if self.timestep is None:
                return self.backbone.features(image, coordinates)
            return self.backbone.noisy_features(image, coordinates, timestep=self.timestep, noise=noise)


@dataclass(frozen=True)
class VoxelTable:
    """Sampled voxels of one case: descriptors (N, C) half, labels (N,), and how many voxels each stands for (N,)."""

    descriptors: Tensor
    labels: Tensor
    weights: Tensor


def tile_pyramids(case: Case, source: FeatureSource) -> Iterator[tuple[list[Tensor], NDArray, NDArray]]:
    """For each tile: its pyramid, and the body voxels (N, 3) of its core, within the tile and within the case."""
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
    body = image[0] > _BODY_THRESHOLD
    for start in np.ndindex(*[-(-n // core) for n in size]):
        place = tuple(slice(s * core, s * core + _TILE) for s in start)
        inside = np.argwhere(body[place].numpy()[(slice(_MARGIN, -_MARGIN),) * 3]) + _MARGIN
        if not len(inside):
            continue
        tile = (slice(None), *place)
        pyramid = source.pyramid(
            image[tile][None].contiguous(memory_format=torch.channels_last_3d),
            coordinates[tile][None],
            noise[tile][None],
        )
        yield pyramid, inside, inside + np.array(start) * core - _MARGIN


def training_sample(case: Case, *, per_class: int, background: int, seed: int = 0) -> NDArray[np.float32]:
    """How many voxels each chosen voxel (z, y, x) stands for; 0 for those not chosen.

    Up to `per_class` voxels of each organ and `background` others, drawn at random from the body.
    """
    random = np.random.default_rng(seed)
    weights = np.zeros(case.labels.shape, dtype=np.float32)
    body = case.image > _BODY_THRESHOLD
    for value in np.unique(case.labels[body]):
        places = np.flatnonzero((case.labels == value) & body)
        count = min(len(places), background if value == 0 else per_class)
        weights.ravel()[random.choice(places, count, replace=False)] = len(places) / count
    return weights


def testing_sample(case: Case, *, stride: int) -> NDArray[np.float32]:
    """1 for every `stride`-th body voxel along z and y, else 0: enough to tell Dice, a fraction of the work."""
    weights = np.zeros(case.labels.shape, dtype=np.float32)
    weights[::stride, ::stride] = 1
    return weights * (case.image > _BODY_THRESHOLD)


def voxel_tables(case: Case, source: FeatureSource, samples: Sequence[NDArray[np.float32]]) -> list[VoxelTable]:
    """One table for each sample of voxels, in one pass over the scan."""
    parts: list[list[tuple[Tensor, NDArray, NDArray]]] = [[] for _ in samples]
    for pyramid, local, place in tile_pyramids(case, source):
        z, y, x = place.T
        for found, weights in zip(parts, samples, strict=True):
            chosen = weights[z, y, x] > 0
            descriptors = descriptors_at(pyramid, torch.from_numpy(local[chosen])).half()
            found.append((descriptors, case.labels[z, y, x][chosen], weights[z, y, x][chosen]))
    return [
        VoxelTable(
            torch.cat([p[0] for p in found]),
            torch.from_numpy(np.concatenate([p[1] for p in found])).long(),
            torch.from_numpy(np.concatenate([p[2] for p in found])),
        )
        for found in parts
    ]
