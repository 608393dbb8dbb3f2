"""Simulated errors of a pre-segmentation for the training of the refiner."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

_MAX_SHIFT = 3


def corrupted(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """Apply a random error to class probabilities (classes, z, y, x): an organ removed, merged, shifted or blurred."""
    errors: list[Callable[[Tensor, torch.Generator], Tensor]] = [without_organ, _merged, _shifted, _blurred]
    return errors[_integer(len(errors), generator)](probabilities, generator)


def without_organ(p: Tensor, generator: torch.Generator) -> Tensor:
    """Class probabilities (classes, z, y, x) with those of a random organ that is present given to the background."""
    organ = _present_organ(p, generator)
    p = p.clone()
    p[0] += p[organ]
    p[organ] = 0
    return p


def _merged(p: Tensor, generator: torch.Generator) -> Tensor:
    organ, other = _present_organ(p, generator), 1 + _integer(p.shape[0] - 1, generator)
    p = p.clone()
    if organ != other:
        p[other] += p[organ]
        p[organ] = 0
    return p


def _shifted(p: Tensor, generator: torch.Generator) -> Tensor:
    amounts = [_integer(2 * _MAX_SHIFT + 1, generator) - _MAX_SHIFT for _ in range(3)]
    return p.roll(amounts, dims=(1, 2, 3))


def _blurred(p: Tensor, generator: torch.Generator) -> Tensor:
    width = 3 + 2 * _integer(2, generator)
    return F.avg_pool3d(p[None], width, stride=1, padding=width // 2, count_include_pad=False)[0]


def _present_organ(p: Tensor, generator: torch.Generator) -> int:
    present = (p[1:].flatten(1).amax(dim=1) > 0.5).nonzero().flatten() + 1
    return int(present[_integer(len(present), generator)]) if len(present) else 1


def _integer(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (), generator=generator))
