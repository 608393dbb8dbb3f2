"""Samples of the label map over a whole volume: every tile runs its own reverse chain, the results are blended.

What of a tile does not change between steps and samples is computed once. All tiles read one noise field, so chains
that overlap agree and leave no seams.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from ..diffusion.noise import noise_window
from ..diffusion.schedule import log_snr
from ..networks.precision import autocast
from ..networks.refiner import Refiner, Shared
from .constraints import clamped
from .features import Stage1
from .sampling import PredictX0, SamplingPlan, Window, coded, sample_steps

Place = tuple[slice, slice, slice]


def _nothing() -> None:
    """Nobody counts."""


@dataclass
class TileChains:
    """Reverse chains over the tiles of `stage1`; the network computes in `dtype` on `device`.

    Every estimate is certain of the `marks`, one-hot (classes, z, y, x), which the network sees unless `show_marks` is
    False. `tick` is called before every pass of the network.
    """

    stage1: Stage1
    refiner: Refiner
    device: torch.device
    dtype: torch.dtype = torch.float32
    marks: Tensor | None = None
    show_marks: bool = True
    tick: Callable[[], None] = _nothing
    _shared: dict[int, Shared] = field(default_factory=dict)

    def sample(self, plan: SamplingPlan, *, sample: int, window: Window | None = None) -> Tensor:
        """Probabilities (classes, z, y, x) of one sample: the last estimate of x_0, as in Fu et al. 2023.

        What is only a `window` of a larger volume meets the noise that the whole met there.
        """
        noise = self._noise(plan, sample, window)

        def last(index: int, place: Place) -> Tensor:
            *_, estimate = self._chain(index, place, plan, noise)
            return estimate

        return self.stage1.tiling.blend(last, channels=self.refiner.classes)

    def steps(self, plan: SamplingPlan, *, sample: int) -> list[Tensor]:
        """The estimate of x_0, probabilities (classes, z, y, x), after each step of one sample."""
        noise = self._noise(plan, sample, None)

        def every(index: int, place: Place) -> Tensor:
            return torch.cat(list(self._chain(index, place, plan, noise)))

        blended = self.stage1.tiling.blend(every, channels=self.refiner.classes * plan.steps)
        return list(blended.split(self.refiner.classes))

    def _noise(self, plan: SamplingPlan, sample: int, window: Window | None) -> Callable[[int], Tensor]:
        part = window or Window(self.stage1.tiling.shape, _whole(self.stage1.tiling.shape))
        classes = self.refiner.classes

        @cache
        def field_of(step: int) -> Tensor:
            return noise_window(part.whole, part.place, channels=classes, seed=plan.seed, sample=sample, step=step)

        return field_of

    def _chain(self, index: int, place: Place, plan: SamplingPlan, noise: Callable[[int], Tensor]) -> list[Tensor]:
        cut = (slice(None), *place)
        pre = self.stage1.pre[cut].to(self.device)
        marks = None if self.marks is None else self.marks[cut].to(self.device)
        predict = self._predictor(index, pre, self._shared_of(index, place, pre, marks), marks)
        return list(sample_steps(pre, predict, plan, noise=lambda step: noise(step)[cut].to(self.device)))

    def _predictor(self, index: int, pre: Tensor, shared: Shared, marks: Tensor | None) -> PredictX0:
        """(x_t, alpha_bar, previous x_0) -> probabilities (classes, z, y, x) of one tile."""
        half_features = self.stage1.features[index][1].to(self.dtype)

        def predict(x_t: Tensor, alpha_bar: float, previous: Tensor | None) -> Tensor:
            self.tick()
            level = log_snr(torch.tensor([alpha_bar])).to(self.device)
            shown = None
            if previous is not None and self.refiner.self_conditioning:
                shown = self._laid_out(coded(previous))
            with autocast(self.device, self.dtype):
                logits = self.refiner.step(shared, half_features, self._laid_out(x_t), pre[None], level, shown)
                estimate = logits.float().softmax(dim=1)[0]
            return estimate if marks is None else clamped(estimate, marks)

        return predict

    def _shared_of(self, index: int, place: Place, pre: Tensor, marks: Tensor | None) -> Shared:
        if index not in self._shared:
            coordinates = self.stage1.coordinates[(slice(None), *place)].to(self.device)
            with autocast(self.device, self.dtype):
                self._shared[index] = self.refiner.shared(
                    self.stage1.features[index][0].to(self.dtype),
                    self._laid_out(coordinates),
                    self._laid_out(pre),
                    self._laid_out(marks) if marks is not None and self.show_marks else None,
                )
        return self._shared[index]

    def _laid_out(self, tensor: Tensor) -> Tensor:
        """A batch of one as the convolutions like it."""
        return tensor[None].to(self.dtype, memory_format=torch.channels_last_3d)


def _whole(shape: tuple[int, int, int]) -> Place:
    z, y, x = shape
    return slice(0, z), slice(0, y), slice(0, x)
