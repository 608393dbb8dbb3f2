"""The temperature that divides a network's logits (Guo et al. 2017): 1 as trained, fitted on cases not trained on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from torch import Tensor, nn


def temperature(network: nn.Module) -> float:
    """The network's temperature, above 0."""
    return float(cast(Tensor, network.temperature))


def set_temperature(network: nn.Module, value: float) -> None:
    """Above 1 the network becomes less sure, below 1 surer; its label map stays.

    Raises:
        ValueError: For a value that is not above 0.
    """
    if not value > 0:
        raise ValueError(f"a temperature is above 0, not {value}")
    cast(Tensor, network.temperature).fill_(value)


@contextmanager
def as_trained(network: nn.Module) -> Iterator[None]:
    """Within, the network runs at temperature 1."""
    kept = temperature(network)
    set_temperature(network, 1.0)
    try:
        yield
    finally:
        set_temperature(network, kept)
