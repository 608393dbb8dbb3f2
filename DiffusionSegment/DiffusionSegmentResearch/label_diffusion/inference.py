"""Samples of a whole scan by a `LabelDenoiser`: a chain for every tile of the coarse grid, blended, and decoded.

All tiles share one noise field.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.diffusion.schedule import log_snr
from DiffusionSegmentBackend.imaging.volume import Box
from DiffusionSegmentBackend.models.tile_shape import TileShape
from DiffusionSegmentBackend.networks.bodypart import normalised
from DiffusionSegmentBackend.pipeline.tiling import Tiling, tiling_of
from torch import Tensor

from .coarse import POOL, decoded, pooled
from .network import LabelDenoiser, LogitDistribution
from .process import Process, sample
from .training import PATCH

_TILE = TileShape.cube(PATCH // POOL)
_NO_STATE = 1e-4
_SEED_STRIDE = 10_007


@dataclass(frozen=True)
class Scan:
    """Image (z, y, x) in -1..1, normalised coordinates (3, z, y, x), both on the coarse grid, and the case's shape."""

    image: Tensor
    coordinates: Tensor
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, case: Case) -> Scan:
        """The input of the networks of a case, padded to the size of a tile and to whole voxels of the coarse grid."""
        image, coordinates_mm = case.padded(TileShape.cube(_TILE.voxels[0], (POOL, POOL, POOL)))
        z, y, x = case.labels.shape
        whole = torch.cat([image[None], normalised(coordinates_mm)])
        coarse = pooled(whole[None])[0]
        return cls(coarse[0], coarse[1:], (z, y, x))

    def padded(self, pre: Tensor) -> Tensor:
        """Probabilities (classes, z, y, x) of the case, padded with background as the image was."""
        result = torch.zeros((len(pre), *(n * POOL for n in self.image.shape)))
        result[0] = 1
        z, y, x = self.shape
        result[:, :z, :y, :x] = pre
        return result

    def decoded(self, coarse: Tensor, pre: Tensor) -> Tensor:
        """Probabilities (classes, z, y, x) of the case from those on the coarse grid and the padded `pre`."""
        z, y, x = self.shape
        return decoded(coarse, pre)[:, :z, :y, :x]

    @property
    def tiling(self) -> Tiling:
        """Tiles of the size used in training, because the result of group norm depends on it."""
        return tiling_of(self.image, _TILE)


@dataclass
class FieldsOfScan:
    """The random fields of one sample of a whole scan, generated on demand."""

    process: Process
    shape: tuple[int, int, int]
    classes: int
    seed: int
    _noise: dict[int, Tensor] = field(default_factory=dict)
    _uniform: dict[int, Tensor] = field(default_factory=dict)

    def noise(self, step: int) -> Tensor:
        """(classes, z, y, x), of variance 1."""
        if step not in self._noise:
            self._noise[step] = self.process.noise(
                self.shape, channels=self.classes, generator=self._generator(2 * step)
            )
        return self._noise[step]

    def uniform(self, step: int) -> Tensor:
        """(z, y, x), in 0..1."""
        if step not in self._uniform:
            self._uniform[step] = torch.rand(self.shape, generator=self._generator(2 * step + 1))
        return self._uniform[step]

    def _generator(self, stream: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * _SEED_STRIDE + stream)


@dataclass(frozen=True)
class _FieldsOfTile:
    whole: FieldsOfScan
    tile: Box

    def noise(self, step: int) -> Tensor:
        return self.whole.noise(step)[(slice(None), *self.tile)]

    def uniform(self, step: int) -> Tensor:
        return self.whole.uniform(step)[self.tile]


@torch.inference_mode()
def sampled(
    network: LabelDenoiser, scan: Scan, pre: Tensor, process: Process, *, steps: int, shown: bool, seed: int
) -> Tensor:
    """Probabilities (classes, z, y, x) of one sample from the noised pre-segmentation, on its grid.

    Args:
        network: in evaluation mode, on the CPU.
        scan: input of the network.
        pre: probabilities (classes, z, y, x) of the pre-segmentation, of the shape of the case.
        process: as in training.
        steps: passes of the network.
        shown: whether the network sees the pre-segmentation beside the state.
        seed: determines the sample.
    """
    fine = scan.padded(pre)
    coarse = pooled(fine[None])[0]
    fields = FieldsOfScan(process, scan.tiling.shape, network.classes, seed)

    def chain(_: int, tile: Box) -> Tensor:
        part = coarse[(slice(None), *tile)]

        def predict(state: Tensor, alpha_bar: float) -> Tensor:
            return _logits(network, scan, tile, part, state, alpha_bar, shown=shown).mean[0].float()

        return sample(process, part, predict, _FieldsOfTile(fields, tile), steps=steps)

    return scan.decoded(scan.tiling.blend(chain, channels=network.classes), fine)


@torch.inference_mode()
def drawn_samples(network: LabelDenoiser, scan: Scan, pre: Tensor, *, count: int, shown: bool, seed: int) -> Tensor:
    """Probabilities (count + 1, classes, z, y, x) of a network without states: of the mean logits, then of draws.

    The coefficients of a draw are the same in all tiles.
    """
    fine = scan.padded(pre)
    coarse = pooled(fine[None])[0]
    generator = torch.Generator().manual_seed(seed)
    coefficients = torch.randn((count, network.rank), generator=generator)

    def predict(_: int, tile: Box) -> Tensor:
        part = coarse[(slice(None), *tile)]
        logits = _logits(network, scan, tile, part, torch.zeros_like(part), _NO_STATE, shown=shown)
        every = [logits.mean, *(logits.drawn(c[None]) for c in coefficients)]
        return torch.cat([item.float().softmax(dim=1)[0] for item in every])

    blended = scan.tiling.blend(predict, channels=network.classes * (count + 1))
    return torch.stack([scan.decoded(part, fine) for part in blended.split(network.classes)])


def _logits(
    network: LabelDenoiser, scan: Scan, tile: Box, pre: Tensor, state: Tensor, alpha_bar: float, *, shown: bool
) -> LogitDistribution:
    layout = torch.channels_last_3d
    result: LogitDistribution = network(
        scan.image[tile][None, None].contiguous(memory_format=layout),
        scan.coordinates[(slice(None), *tile)][None],
        pre[None],
        torch.tensor([float(shown)]),
        state[None].contiguous(memory_format=layout),
        log_snr(torch.tensor([alpha_bar])),
    )
    return result
