"""Samples of the label map of a volume: a reverse chain for every tile, blended.

What does not change between the steps and samples of a tile is computed once. All tiles use one noise field, so that
overlapping chains agree and leave no seams. A tile in which hardly a voxel is in doubt keeps its pre-segmentation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property

import torch
from torch import Tensor

from ..diffusion.noise import noise_window
from ..diffusion.schedule import log_snr
from ..imaging.volume import Box
from ..networks.precision import autocast
from ..networks.refiner import Refiner, Shared
from .constraints import clamped
from .features import Stage1
from .sampling import PredictX0, SamplingPlan, Window, coded, sample_steps

# A voxel is in doubt where no class has at least this probability, and a tile where at least this share of it is.
CERTAIN_PROBABILITY, MIN_SHARE_IN_DOUBT = 0.9, 0.005


def is_in_doubt(pre: Tensor) -> bool:
    """Whether the pre-segmentation (classes, z, y, x) of a tile leaves enough doubt for samples."""
    largest = pre.amax(dim=0)
    return int((largest < CERTAIN_PROBABILITY).sum()) >= MIN_SHARE_IN_DOUBT * largest.numel()


def _no_tick() -> None:
    """The default of `TileChains.tick`."""


@dataclass
class TileChains:
    """Reverse chains of the tiles of `stage1`.

    Attributes:
        stage1: tiles, features and pre-segmentation.
        refiner: the denoising network.
        device: device of the network.
        dtype: type in which the network computes.
        scribbles: one-hot labels (classes, z, y, x) to which every estimate is clamped, zero elsewhere.
        show_scribbles: whether the scribbles are an input of the network.
        only_in_doubt: whether tiles without doubt (`is_in_doubt`) keep their pre-segmentation.
        tick: called before every pass of the network.
    """

    stage1: Stage1
    refiner: Refiner
    device: torch.device
    dtype: torch.dtype = torch.float32
    scribbles: Tensor | None = None
    show_scribbles: bool = True
    only_in_doubt: bool = False
    tick: Callable[[], None] = _no_tick
    _shared: dict[int, Shared] = field(default_factory=dict)

    @cached_property
    def sampled(self) -> list[bool]:
        """Of every tile whether it is sampled."""
        pre = self.stage1.pre
        return [not self.only_in_doubt or is_in_doubt(pre[(slice(None), *tile)]) for tile in self.stage1.tiling.tiles]

    def sample(self, plan: SamplingPlan, *, sample: int, window: Window | None = None) -> Tensor:
        """Probabilities (classes, z, y, x) of one sample: the last estimate of x_0, as in Fu et al. 2023.

        `window` is the position of the volume in a larger one, whose noise field is used.
        """
        noise = self._noise(plan, sample, window)

        def last(index: int, tile: Box) -> Tensor:
            if not self.sampled[index]:
                return self.stage1.pre[(slice(None), *tile)]
            *_, estimate = self._chain(index, tile, plan, noise)
            return estimate

        return self.stage1.tiling.blend(last, channels=self.refiner.classes)

    def steps(self, plan: SamplingPlan, *, sample: int) -> list[Tensor]:
        """The estimate of x_0, probabilities (classes, z, y, x), after each step of one sample."""
        noise = self._noise(plan, sample, None)

        def every(index: int, tile: Box) -> Tensor:
            return torch.cat(list(self._chain(index, tile, plan, noise)))

        blended = self.stage1.tiling.blend(every, channels=self.refiner.classes * plan.steps)
        return list(torch.split(blended, self.refiner.classes))

    def _noise(self, plan: SamplingPlan, sample: int, window: Window | None) -> Callable[[int], Tensor]:
        part = window or Window(self.stage1.tiling.shape, _whole(self.stage1.tiling.shape))
        classes = self.refiner.classes

        @cache
        def field_of(step: int) -> Tensor:
            return noise_window(part.whole, part.box, channels=classes, seed=plan.seed, sample=sample, step=step)

        return field_of

    def _chain(self, index: int, tile: Box, plan: SamplingPlan, noise: Callable[[int], Tensor]) -> list[Tensor]:
        """The estimates of x_0 after each step of one tile."""
        cut = (slice(None), *tile)
        pre = self.stage1.pre[cut].to(self.device)
        scribbles = None if self.scribbles is None else self.scribbles[cut].to(self.device)
        predict = self._predictor(index, pre, self._shared_of(index, tile, pre, scribbles), scribbles)
        return list(sample_steps(pre, predict, plan, noise=lambda step: noise(step)[cut].to(self.device)))

    def _predictor(self, index: int, pre: Tensor, shared: Shared, scribbles: Tensor | None) -> PredictX0:
        """(x_t, alpha_bar, previous x_0) -> probabilities (classes, z, y, x) of one tile."""
        half_features = self.stage1.features[index][1].to(self.dtype)

        def predict(x_t: Tensor, alpha_bar: float, previous: Tensor | None) -> Tensor:
            self.tick()
            level = log_snr(torch.tensor([alpha_bar])).to(self.device)
            shown = None
            if previous is not None and self.refiner.self_conditioning:
                shown = self._batch(coded(previous))
            with autocast(self.device, self.dtype):
                logits = self.refiner.step(shared, half_features, self._batch(x_t), pre[None], level, shown)
                estimate = logits.float().softmax(dim=1)[0]
            return estimate if scribbles is None else clamped(estimate, scribbles)

        return predict

    def _shared_of(self, index: int, tile: Box, pre: Tensor, scribbles: Tensor | None) -> Shared:
        """What is the same in all steps and samples of a tile."""
        if index not in self._shared:
            coordinates = self.stage1.coordinates[(slice(None), *tile)].to(self.device)
            with autocast(self.device, self.dtype):
                self._shared[index] = self.refiner.shared(
                    self.stage1.features[index][0].to(self.dtype),
                    self._batch(coordinates),
                    self._batch(pre),
                    self._batch(scribbles) if scribbles is not None and self.show_scribbles else None,
                )
        return self._shared[index]

    def _batch(self, tensor: Tensor) -> Tensor:
        """A batch of one in the network's type and the memory format of its convolutions."""
        return tensor[None].to(self.dtype, memory_format=torch.channels_last_3d)


def _whole(shape: tuple[int, int, int]) -> Box:
    z, y, x = shape
    return slice(0, z), slice(0, y), slice(0, x)
