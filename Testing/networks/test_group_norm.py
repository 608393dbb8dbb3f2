"""The group norm of the networks: PyTorch's values and gradients, sooner."""

from __future__ import annotations

import pytest
import torch
from DiffusionSegmentBackend.networks.group_norm import GroupNorm
from torch import Tensor, nn


def passed(layer: nn.GroupNorm, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = layer(x)
    (y * weight).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is not None
    assert layer.bias.grad is not None
    return y.detach(), x.grad, layer.weight.grad, layer.bias.grad


def pair(groups: int, channels: int) -> tuple[GroupNorm, nn.GroupNorm]:
    own, reference = GroupNorm(groups, channels), nn.GroupNorm(groups, channels)
    with torch.no_grad():
        own.weight.normal_(generator=torch.Generator().manual_seed(1))
        own.bias.normal_(generator=torch.Generator().manual_seed(2))
    reference.load_state_dict(own.state_dict())
    return own, reference


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize(("groups", "channels"), [(1, 4), (8, 16), (8, 8)])
def test_values_and_gradients_are_those_of_pytorch(layout: torch.memory_format, groups: int, channels: int) -> None:
    own, reference = pair(groups, channels)
    generator = torch.Generator().manual_seed(0)
    x = (3 + 2 * torch.randn(2, channels, 6, 5, 4, generator=generator)).contiguous(memory_format=layout)
    weight = torch.randn(x.shape, generator=generator)
    for result, expected in zip(passed(own, x, weight), passed(reference, x, weight), strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


def test_bfloat16_gradients_stay_within_its_precision() -> None:
    own, reference = pair(8, 16)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 16, 12, 12, 12, generator=generator).contiguous(memory_format=torch.channels_last_3d)
    weight = torch.randn(x.shape, generator=generator)
    result = passed(own, x.bfloat16(), weight)[1].float()
    expected = passed(reference, x, weight)[1]
    assert float((result - expected).norm() / expected.norm()) < 0.01
