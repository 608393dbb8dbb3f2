"""Temperature scaling of the logits (Guo et al. 2017): 1 in training, fitted on cases not trained on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def temperature(network: nn.Module) -> float:
    """The temperature of a network, above 0."""
    return float(network.get_buffer("temperature"))


def set_temperature(network: nn.Module, value: float) -> None:
    """Set the temperature: above 1 the network becomes less confident, below 1 more; its label map stays the same.

    Raises:
        ValueError: `value` is not above 0.
    """
    if not value > 0:
        raise ValueError(f"a temperature must be above 0, not {value}")
    network.get_buffer("temperature").fill_(value)


@contextmanager
def as_trained(network: nn.Module) -> Iterator[None]:
    """Context in which the network has temperature 1."""
    kept = temperature(network)
    set_temperature(network, 1.0)
    try:
        yield
    finally:
        set_temperature(network, kept)
