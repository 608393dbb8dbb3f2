"""One reverse step from x_t to x_s, s < t, given the network's estimate of x_0."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import unknown_name

SAMPLERS = ("ddim", "ddpm")


def ddim_step(
    x_t: Tensor, x0: Tensor, *, alpha_bar_t: float, alpha_bar_s: float, eta: float = 0.0, noise: Tensor | None = None
) -> Tensor:
    """Song et al. 2021, eq. 12. `eta` = 0 is deterministic; eta = 1 has the variance of DDPM's posterior.

    With eps = (x_t - sqrt(abar_t) x0) / sqrt(1 - abar_t) put in, the equation is a sum of x_t and x0.
    """
    sigma = eta * _posterior_sigma(alpha_bar_t, alpha_bar_s)
    of_state = (max(0.0, 1 - alpha_bar_s - sigma**2) / (1 - alpha_bar_t)) ** 0.5
    of_clean = alpha_bar_s**0.5 - of_state * alpha_bar_t**0.5
    x_s = torch.add(of_state * x_t, x0, alpha=of_clean)
    return x_s if noise is None or sigma == 0 else x_s.add_(noise, alpha=sigma)


def ddpm_step(x_t: Tensor, x0: Tensor, *, alpha_bar_t: float, alpha_bar_s: float, noise: Tensor) -> Tensor:
    """Sample of q(x_s | x_t, x_0) (Ho et al. 2020, eq. 6 and 7, between any two steps s < t)."""
    alpha = alpha_bar_t / alpha_bar_s
    of_clean = alpha_bar_s**0.5 * (1 - alpha) / (1 - alpha_bar_t)
    of_state = alpha**0.5 * (1 - alpha_bar_s) / (1 - alpha_bar_t)
    mean = torch.add(of_state * x_t, x0, alpha=of_clean)
    return mean.add_(noise, alpha=_posterior_sigma(alpha_bar_t, alpha_bar_s))


def reverse_step(
    sampler: str, x_t: Tensor, x0: Tensor, *, alpha_bar_t: float, alpha_bar_s: float, noise: Tensor
) -> Tensor:
    """The step of the named sampler ("ddim" or "ddpm").

    Raises:
        DiffusionSegmentError: OPTION for another name.
    """
    if sampler == "ddim":
        return ddim_step(x_t, x0, alpha_bar_t=alpha_bar_t, alpha_bar_s=alpha_bar_s)
    if sampler == "ddpm":
        return ddpm_step(x_t, x0, alpha_bar_t=alpha_bar_t, alpha_bar_s=alpha_bar_s, noise=noise)
    raise unknown_name("sampler", sampler, SAMPLERS)


def _posterior_sigma(alpha_bar_t: float, alpha_bar_s: float) -> float:
    variance = (1 - alpha_bar_s) / (1 - alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_s)
    return max(0.0, variance) ** 0.5
