"""Temperatures of probe and refiner: less sure, the same label map, and forgotten when training goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.networks.probe import Probe
from DiffusionSegmentBackend.networks.refiner import Refiner
from DiffusionSegmentBackend.networks.temperature import as_trained, set_temperature, temperature
from torch import Tensor, nn

CHANNELS = (8, 8)
CLASSES = 3


@pytest.fixture
def pyramid() -> list[Tensor]:
    """Features of one tile of 16 voxels."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn((1, 8, n, n, n), generator=generator) for n in (16, 8)]


def refiner_logits(network: Refiner, pyramid: list[Tensor]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    pre = torch.randn((1, CLASSES, 16, 16, 16), generator=generator).softmax(dim=1)
    coordinates = torch.randn((1, 3, 16, 16, 16), generator=generator)
    return network(pyramid, coordinates, 2 * pre - 1, pre, None, torch.zeros(1))


@pytest.fixture(params=["probe", "refiner"])
def network_and_logits(request: pytest.FixtureRequest, pyramid: list[Tensor]) -> tuple[nn.Module, Callable[[], Tensor]]:
    """An untrained network and what gives its logits."""
    torch.manual_seed(2)
    if request.param == "probe":
        probe = Probe(CHANNELS, CLASSES).eval()
        return probe, lambda: probe(pyramid)
    refiner = Refiner(CHANNELS, CLASSES).eval()
    nn.init.normal_(refiner.head.weight)
    return refiner, lambda: refiner_logits(refiner, pyramid)


@torch.no_grad()
def test_a_temperature_divides_the_logits_and_keeps_the_labels(
    network_and_logits: tuple[nn.Module, Callable[[], Tensor]],
) -> None:
    network, logits = network_and_logits
    before = logits()
    set_temperature(network, 2.0)
    assert torch.allclose(logits(), before / 2, atol=1e-6)
    assert torch.equal(logits().argmax(dim=1), before.argmax(dim=1))
    assert (logits().softmax(dim=1).amax(dim=1) < before.softmax(dim=1).amax(dim=1)).all()


def test_as_trained_gives_the_temperature_back_even_after_an_error() -> None:
    probe = Probe(CHANNELS, CLASSES)
    set_temperature(probe, 1.5)
    with as_trained(probe):
        assert temperature(probe) == 1
    assert temperature(probe) == 1.5
    with pytest.raises(KeyError), as_trained(probe):
        raise KeyError
    assert temperature(probe) == 1.5


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_an_invalid_temperature_is_refused(value: float) -> None:
    probe = Probe(CHANNELS, CLASSES)
    with pytest.raises(ValueError, match="above 0"):
        set_temperature(probe, value)
    assert temperature(probe) == 1


def test_the_probe_cannot_be_calibrated_without_probabilities(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", "--model", str(tmp_path), "--data", str(tmp_path)]) == 2
    assert "--presegmentations" in capsys.readouterr().err
