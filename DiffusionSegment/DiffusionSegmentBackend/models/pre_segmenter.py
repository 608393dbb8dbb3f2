"""Features and pre-segmentation of a tile in one pass, for each kind of model.

The first generation has a backbone and a probe on its features, the second one network for both. A fine-tuned model has
a probe on the features of either.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..diffusion.schedule import Schedule, add_noise, log_snr
from ..networks.backbone import Backbone
from ..networks.fine_path import upsampled
from ..networks.probe import Probe
from ..networks.segmenter import Segmenter
from ..networks.space_to_depth import Stride
from .tile_shape import Sides, TileShape

# Measured (docs/PERFORMANCE.md) on a tile of 64^3: bytes of the features that the refiner reads, and of one pass.
_MEASURED_SIDE = 64
_TILE_BYTES = {torch.bfloat16: 27e6, torch.float32: 43e6}
_PASS_BYTES = {torch.bfloat16: 110e6, torch.float32: 330e6}
# Measured likewise on a segmenter of the usual size: number of maps in memory at once. While the trunk runs, maps of
# its finest level; while the fine path runs, these, its own maps and the logits.
_TRUNK_COPIES = 6.3
_KEPT_COPIES, _FINE_COPIES, _LOGIT_COPIES = 2.5, 2.5, 3.0
_FINEST_LEVELS = 2


@dataclass(frozen=True)
class Footprint:
    """Memory in bytes: of the stored features of one tile, and of one pass without them."""

    tile_bytes: float
    pass_bytes: float


@dataclass(frozen=True)
class PreSegmenter(ABC):
    """Images (B, 1, Z, Y, X) in -1..1 and normalised body coordinates (B, 3, Z, Y, X) on the model's grid in.

    Features come out as a pyramid on the trunk's grid, finest first, logits (B, classes, Z, Y, X) on the model's.
    """

    trunk: Backbone | Segmenter

    @property
    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """The networks by their names in model.json."""

    @abstractmethod
    def logits(self, image: Tensor, pyramid: list[Tensor]) -> Tensor:
        """Logits from the image and its features."""

    @abstractmethod
    def footprint(self, tile: TileShape, dtype: torch.dtype) -> Footprint:
        """Memory of a tile, with computation in `dtype`."""

    @abstractmethod
    def to(self, device: torch.device) -> PreSegmenter:
        """A copy on another device."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the features, finest level first."""
        return self.trunk.channels

    @property
    def stride(self) -> Stride:
        """Voxels (z, y, x) of the model's grid that a voxel of the finest features covers."""
        return self.trunk.stride

    @property
    def multiples(self) -> Sides:
        """Voxels (z, y, x) of the model's grid that a voxel of the coarsest features covers."""
        z, y, x = (step * 2 ** (len(self.channels) - 1) for step in self.stride)
        return z, y, x

    @property
    def feature_timestep(self) -> int:
        """The timestep of 1000 with which the trunk is conditioned for an image without noise."""
        return self.trunk.feature_timestep

    def features(self, image: Tensor, coordinates: Tensor) -> list[Tensor]:
        """The pyramid of an image without noise."""
        return self.trunk.features(image, F.avg_pool3d(coordinates, self.stride))

    def noisy_features(self, image: Tensor, coordinates: Tensor, *, timestep: int, noise: Tensor) -> list[Tensor]:
        """The pyramid of x_t at `timestep` of 1000; `noise` is standard normal of the image's shape."""
        alpha_bar = Schedule("linear").at(timestep).to(image.device).expand(image.shape[0])
        x_t = add_noise(image, noise, alpha_bar)
        return self.trunk.pyramid(x_t, F.avg_pool3d(coordinates, self.stride), log_snr(alpha_bar))


@dataclass(frozen=True)
class ProbedFeatures(PreSegmenter):
    """A probe on the features of a backbone, or of a segmenter, whose own head is then not used."""

    probe: Probe

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The trunk and the probe."""
        return {_TRUNK_NAMES[type(self.trunk)]: self.trunk, "probe": self.probe}

    def logits(self, image: Tensor, pyramid: list[Tensor]) -> Tensor:
        """The probe's logits, interpolated to the model's grid."""
        return upsampled(self.probe(pyramid), self.stride)

    def footprint(self, tile: TileShape, dtype: torch.dtype) -> Footprint:
        """Measured on the first generation, in proportion to the voxels."""
        size = prod(tile.trunk_voxels) / _MEASURED_SIDE**3
        fine = 4.0 * _LOGIT_COPIES * self.probe.classes * (prod(tile.voxels) - prod(tile.trunk_voxels))
        return Footprint(size * _TILE_BYTES[dtype], size * _PASS_BYTES[dtype] + fine)

    def to(self, device: torch.device) -> ProbedFeatures:
        """A copy on another device."""
        return ProbedFeatures(copy.deepcopy(self.trunk).to(device), copy.deepcopy(self.probe).to(device))


@dataclass(frozen=True)
class WholeSegmenter(PreSegmenter):
    """The second-generation network with its own head and fine path."""

    trunk: Segmenter

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The one network."""
        return {"segmenter": self.trunk}

    def logits(self, image: Tensor, pyramid: list[Tensor]) -> Tensor:
        """Logits on the model's grid."""
        return self.trunk.logits(image, pyramid).fine

    def footprint(self, tile: TileShape, dtype: torch.dtype) -> Footprint:
        """Computed from the sizes of the maps in memory at once."""
        number = 2.0 if dtype is torch.bfloat16 else 4.0
        trunk, levels = prod(tile.trunk_voxels), self.channels
        level, logits = number * levels[0] * trunk, 4.0 * self.trunk.classes
        fine = prod(tile.voxels) * (_LOGIT_COPIES * logits + _FINE_COPIES * number * self.trunk.fine_channels)
        kept = sum(2.0 * width * trunk / 8**depth for depth, width in enumerate(levels[:_FINEST_LEVELS]))
        return Footprint(kept, max(_TRUNK_COPIES * level, _KEPT_COPIES * level + fine))

    def to(self, device: torch.device) -> WholeSegmenter:
        """A copy on another device."""
        return replace(self, trunk=copy.deepcopy(self.trunk).to(device))


_TRUNK_NAMES: dict[type[nn.Module], str] = {Backbone: "backbone", Segmenter: "segmenter"}
