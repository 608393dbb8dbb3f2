"""Noise schedules as alpha_bar(t) and their log-SNR, for t in 0..T counted in training steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import unknown_name

SCHEDULES = ("linear", "cosine")
_COSINE_OFFSET = 0.008
_LOG_SNR_LIMIT = 12.0


@dataclass(frozen=True)
class Schedule:
    """alpha_bar over `timesteps` + 1 points, from 1 at t = 0 to nearly 0 at t = T.

    linear: beta from 1e-4 to 2e-2 (Ho et al. 2020, section 4, scaled to T); cosine: Nichol and Dhariwal 2021, eq. 17.
    """

    name: str = "linear"
    timesteps: int = 1000

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise unknown_name("noise schedule", self.name, SCHEDULES)

    @property
    def alpha_bar(self) -> Tensor:
        """Float64 tensor (T + 1,); entry t is the remaining share of signal variance after t steps."""
        if self.name == "cosine":
            t = torch.arange(self.timesteps + 1, dtype=torch.float64) / self.timesteps
            f = torch.cos((t + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * math.pi / 2) ** 2
            return (f / f[0]).clamp(min=1e-5)
        scale = 1000 / self.timesteps
        beta = torch.linspace(1e-4 * scale, 2e-2 * scale, self.timesteps, dtype=torch.float64).clamp(max=0.999)
        return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta, dim=0)])

    def at(self, t: Tensor | int) -> Tensor:
        """alpha_bar at integer steps t in 0..T, any shape, float32."""
        return self.alpha_bar[torch.as_tensor(t)].float()

    def step_of(self, alpha_bar: float) -> int:
        """The step with the nearest alpha_bar; T' is specified by its alpha_bar, not by its index."""
        return int((self.alpha_bar - alpha_bar).abs().argmin())

    def evenly_spaced(self, abar_start: float, steps: int) -> list[float]:
        """alpha_bar at `steps` + 1 times, evenly spaced from T', where it is `abar_start`, to 0."""
        times = torch.linspace(self.step_of(abar_start), 0, steps + 1).round().long()
        return [float(a) for a in self.at(times)]

    def random_levels(self, count: int, last: int, generator: torch.Generator, *, last_share: float) -> Tensor:
        """alpha_bar (count,) at random steps 1..last; a share `last_share` of them is at `last`."""
        t = torch.randint(1, last + 1, (count,), generator=generator)
        at_last = torch.rand(count, generator=generator) < last_share
        return self.at(torch.where(at_last, torch.full_like(t, last), t))


def log_snr(alpha_bar: Tensor) -> Tensor:
    """log(alpha_bar / (1 - alpha_bar)), clamped to -12..12: the time input of all networks."""
    clamped = alpha_bar.double().clamp(1e-6, 1 - 1e-6)
    return torch.log(clamped / (1 - clamped)).clamp(-_LOG_SNR_LIMIT, _LOG_SNR_LIMIT).float()


def add_noise(x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """q(x_t | x_0): sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise (Ho et al. 2020, eq. 4).

    `alpha_bar` is (B,) or a scalar.
    """
    signal = _per_sample(alpha_bar, x0)
    return torch.addcmul(signal.sqrt() * x0, (1 - signal).sqrt(), noise)


def velocity(x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x0 (Salimans and Ho 2022, appendix D)."""
    signal = _per_sample(alpha_bar, x0)
    return signal.sqrt() * noise - (1 - signal).sqrt() * x0


def _per_sample(alpha_bar: Tensor, like: Tensor) -> Tensor:
    alpha_bar = alpha_bar.to(device=like.device, dtype=like.dtype)
    return alpha_bar.reshape(-1, *([1] * (like.ndim - 1))) if alpha_bar.ndim else alpha_bar
