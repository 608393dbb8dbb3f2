"""Reverse diffusion in few steps, started from a noised pre-segmentation.

PD-DDPM (Guo et al. 2022, arXiv 2210.17408): x_T' = sqrt(abar_T') x_pre + sqrt(1 - abar_T') noise, then the reverse
chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..diffusion.reverse import reverse_step
from ..diffusion.schedule import Schedule, add_noise
from ..imaging.volume import Box
from ..schema.run_options import RunPlan


@dataclass(frozen=True, kw_only=True)
class SamplingPlan:
    """Noise levels of a sample: alpha_bar at the start and after each of `steps` steps, ending at the clean state.

    `abar_start` is alpha_bar at T'; at 1 the pre-segmentation has no noise, for one pass of a deterministic refiner.
    """

    schedule: str
    sampler: str
    steps: int
    abar_start: float
    seed: int

    @classmethod
    def of(cls, run: RunPlan) -> SamplingPlan:
        """The noise levels of the samples of a run."""
        return cls(
            schedule=run.schedule, sampler=run.sampler, steps=run.steps, abar_start=run.abar_start, seed=run.seed
        )

    @property
    def alpha_bars(self) -> list[float]:
        """alpha_bar at `steps` + 1 times, evenly spaced in the schedule's time from T' to 0."""
        return Schedule(self.schedule).evenly_spaced(self.abar_start, self.steps)


def coded(probabilities: Tensor) -> Tensor:
    """Class probabilities 0..1 as diffusion states -1..1."""
    return probabilities.mul(2).sub_(1)


@dataclass(frozen=True)
class Window:
    """A `box` of a larger volume of the shape `whole` (z, y, x)."""

    whole: tuple[int, int, int]
    box: Box


# (x_t, alpha_bar, previous x_0 or None) -> probabilities of x_0.
PredictX0 = Callable[[Tensor, float, Tensor | None], Tensor]


def sample_steps(
    pre: Tensor, predict_x0: PredictX0, plan: SamplingPlan, *, noise: Callable[[int], Tensor]
) -> Iterator[Tensor]:
    """The estimate of x_0, probabilities (classes, z, y, x), after each step of one sample.

    Args:
        pre: the pre-segmentation, probabilities (classes, z, y, x).
        predict_x0: `predict_x0(x_t, alpha_bar, previous)` estimates x_0; `previous` is the estimate of the step before.
        plan: noise levels and sampler.
        noise: `noise(step)` is standard normal, of the shape of `pre`.
    """
    alpha_bars = plan.alpha_bars
    x_t = add_noise(coded(pre), noise(0), torch.tensor(alpha_bars[0]))
    x0: Tensor | None = None
    for step, (now, after) in enumerate(pairwise(alpha_bars), start=1):
        x0 = predict_x0(x_t, now, x0)
        yield x0
        if step < plan.steps:
            fresh = noise(step) if plan.sampler == "ddpm" else x_t
            x_t = reverse_step(plan.sampler, x_t, coded(x0), alpha_bar_t=now, alpha_bar_s=after, noise=fresh)
