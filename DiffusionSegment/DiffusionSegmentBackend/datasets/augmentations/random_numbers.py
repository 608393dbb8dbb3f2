"""Random numbers from an explicit generator, on the device of the patches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def uniform(
    shape: Sequence[int], low: float, high: float, *, generator: torch.Generator, device: torch.device
) -> Tensor:
    """float32, uniform in low..high. Drawn on the device of the generator, then moved to `device`."""
    return torch.rand(tuple(shape), generator=generator, device=generator.device).to(device) * (high - low) + low


def log_uniform(
    shape: Sequence[int], low: float, high: float, *, generator: torch.Generator, device: torch.device
) -> Tensor:
    """float32, log-uniform in low..high; both limits must be positive."""
    return uniform(shape, math.log(low), math.log(high), generator=generator, device=device).exp()


def normal(shape: Sequence[int], *, generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard normal float32."""
    return torch.randn(tuple(shape), generator=generator, device=generator.device).to(device)


def integer(low: int, high: int, generator: torch.Generator) -> int:
    """A random integer in low..high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator, device=generator.device))


def chance(share: float, generator: torch.Generator) -> bool:
    """True with probability `share`."""
    return bool(torch.rand((), generator=generator, device=generator.device) < share)


def one_of(weights: Tensor, generator: torch.Generator) -> int:
    """A random index with probabilities proportional to `weights` (n,), which must not all be 0."""
    return int(torch.multinomial(weights.to(generator.device), 1, generator=generator))
