"""One reverse step from x_t to x_s, s < t, given the network's estimate of x_0."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import unknown_name

SAMPLERS = ("ddim", "ddpm")


def ddim_step(
    x_t: Tensor, x0: Tensor, *, alpha_bar_t: float, alpha_bar_s: float, eta: float = 0.0, noise: Tensor | None = None
) -> Tensor:
    """DDIM step (Song et al. 2021, eq. 12), deterministic for `eta` = 0, with the variance of DDPM for `eta` = 1.

    Substituting eps = (x_t - sqrt(abar_t) x0) / sqrt(1 - abar_t) gives a weighted sum of x_t and x0.
    """
    sigma = eta * _posterior_sigma(alpha_bar_t, alpha_bar_s)
    state_weight = (max(0.0, 1 - alpha_bar_s - sigma**2) / (1 - alpha_bar_t)) ** 0.5
    clean_weight = alpha_bar_s**0.5 - state_weight * alpha_bar_t**0.5
    x_s = torch.add(state_weight * x_t, x0, alpha=clean_weight)
    return x_s if noise is None or sigma == 0 else x_s.add_(noise, alpha=sigma)


def ddpm_step(x_t: Tensor, x0: Tensor, *, alpha_bar_t: float, alpha_bar_s: float, noise: Tensor) -> Tensor:
    """DDPM step: a sample of q(x_s | x_t, x_0) (Ho et al. 2020, eq. 6 and 7) for any two steps s < t."""
    alpha = alpha_bar_t / alpha_bar_s
    clean_weight = alpha_bar_s**0.5 * (1 - alpha) / (1 - alpha_bar_t)
    state_weight = alpha**0.5 * (1 - alpha_bar_s) / (1 - alpha_bar_t)
    mean = torch.add(state_weight * x_t, x0, alpha=clean_weight)
    return mean.add_(noise, alpha=_posterior_sigma(alpha_bar_t, alpha_bar_s))


def reverse_step(
    sampler: str, x_t: Tensor, x0: Tensor, *, alpha_bar_t: float, alpha_bar_s: float, noise: Tensor
) -> Tensor:
    """A step of the sampler "ddim" or "ddpm".

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
    return float(max(0.0, variance) ** 0.5)
