"""The diffusion process on scaled label maps (Chen et al. 2022, arXiv 2210.06366: scale 0.1), and its samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from DiffusionSegmentBackend.diffusion.reverse import ddpm_step
from DiffusionSegmentBackend.diffusion.schedule import Schedule, add_noise
from torch import Tensor

from .noise import broad_band_noise, white_noise

# (state of variance 1, alpha_bar) -> logits (classes, z, y, x).
Predict = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True, kw_only=True)
class Process:
    """Scale b of the states -b..b, spectrum of the noise, and alpha_bar at T'."""

    scale: float = 0.1
    broad_band: bool = True
    abar_start: float = 0.01
    schedule: str = "cosine"

    def coded(self, probabilities: Tensor) -> Tensor:
        """Class probabilities 0..1 as states -b..b."""
        return self.scale * (2 * probabilities - 1)

    def noise(self, shape: tuple[int, int, int], *, channels: int, generator: torch.Generator) -> Tensor:
        """Noise (channels, z, y, x) of variance 1."""
        make = broad_band_noise if self.broad_band else white_noise
        return make(shape, channels=channels, generator=generator)

    def normalised(self, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
        """The state as input of the network, divided by its standard deviation; `alpha_bar` broadcasts."""
        return x_t / (alpha_bar * self.scale**2 + 1 - alpha_bar).sqrt()

    def levels(self, count: int, generator: torch.Generator, *, start_share: float = 0.4) -> Tensor:
        """Random alpha_bar (count,) of a training step, with a higher probability at T'."""
        schedule = Schedule(self.schedule)
        last = schedule.step_of(self.abar_start)
        return schedule.random_levels(count, last, generator, last_share=start_share)

    def alpha_bars(self, steps: int) -> list[float]:
        """alpha_bar at `steps` + 1 times, evenly spaced in the schedule's time from T' to 0."""
        return Schedule(self.schedule).evenly_spaced(self.abar_start, steps)


class Fields(Protocol):
    """Random fields of one sample in a tile, by step: `noise` of variance 1, `uniform` in 0..1."""

    def noise(self, step: int) -> Tensor:
        """(classes, z, y, x)."""
        ...

    def uniform(self, step: int) -> Tensor:
        """(z, y, x)."""
        ...


def sample(process: Process, pre: Tensor, predict: Predict, fields: Fields, *, steps: int) -> Tensor:
    """Probabilities (classes, z, y, x) of one sample: DDPM from the noised pre-segmentation.

    All estimates but the last are label maps drawn from the network's probabilities, so that the states are samples and
    not averages.

    Args:
        process: scale and noise levels.
        pre: probabilities (classes, z, y, x).
        predict: the network.
        fields: random numbers; the noise of step 0 is that of the pre-segmentation.
        steps: passes of the network.
    """
    alpha_bars = process.alpha_bars(steps)
    x_t = add_noise(process.coded(pre), fields.noise(0), torch.tensor(alpha_bars[0]))
    estimate = pre
    for step, (now, after) in enumerate(pairwise(alpha_bars), start=1):
        estimate = predict(process.normalised(x_t, torch.tensor(now)), now).softmax(dim=0)
        if step < steps:
            x0 = process.coded(drawn_labels(estimate, fields.uniform(step)))
            x_t = ddpm_step(x_t, x0, alpha_bar_t=now, alpha_bar_s=after, noise=fields.noise(step))
    return estimate


def drawn_labels(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """One-hot labels of the shape of `probabilities` (classes, ...), drawn at every voxel by `uniform` (...)."""
    index = (probabilities.cumsum(dim=0) < uniform).sum(dim=0).clamp(max=len(probabilities) - 1)
    return torch.zeros_like(probabilities).scatter_(0, index[None], 1.0)
