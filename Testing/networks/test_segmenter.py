"""The second-generation network: one trunk, finer grids around it, and beginnings that lose nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from DiffusionSegmentBackend.networks.bf16_check import bf16_convolutions_agree, training_dtype
from DiffusionSegmentBackend.networks.pointwise import PointwiseConv3d
from DiffusionSegmentBackend.networks.segmenter import FINE, Segmenter, start_from_trunk
from DiffusionSegmentBackend.networks.space_to_depth import depth_to_space, space_to_depth

CHANNELS = (8, 8, 16)
CLASSES = 3


def trunk_alone(seed: int = 0) -> Segmenter:
    torch.manual_seed(seed)
    return Segmenter(CLASSES, channels=CHANNELS, stride=(1, 1, 1), fine="none").eval()


def started(trunk: Segmenter, *, fine: str) -> Segmenter:
    network = Segmenter(CLASSES, channels=CHANNELS, stride=(1, 2, 2), fine=fine).eval()
    start_from_trunk(network, trunk)
    return network


@pytest.fixture
def scan() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn((2, 1, 8, 16, 16), generator=generator), torch.randn((2, 3, 8, 8, 8), generator=generator)


@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize("fine", FINE)
def test_logits_lie_on_the_images_grid_and_on_the_trunks(stride: tuple[int, int, int], fine: str) -> None:
    network = Segmenter(CLASSES, channels=CHANNELS, stride=stride, fine=fine)
    sides = [8 * step for step in stride]
    image, coordinates = torch.zeros(2, 1, *sides), torch.zeros(2, 3, 8, 8, 8)
    logits = network(image, coordinates)
    assert logits.fine.shape == (2, CLASSES, *sides)
    assert logits.trunk.shape == (2, CLASSES, 8, 8, 8)
    assert network.velocity(image, coordinates, torch.zeros(2)).shape == image.shape
    assert network.multiples == tuple(4 * step for step in stride)


def test_architecture_builds_the_same_network_again() -> None:
    network = Segmenter(CLASSES, channels=CHANNELS, stride=(1, 2, 2), fine="path")
    again = Segmenter(**network.architecture)
    again.load_state_dict(network.state_dict())
    assert again.architecture == network.architecture


def test_a_network_can_be_described_without_memory() -> None:
    with torch.device("meta"):
        described = Segmenter(CLASSES, channels=CHANNELS, fine="path").state_dict()
    built = Segmenter(CLASSES, channels=CHANNELS, fine="path").state_dict()
    assert {key: value.shape for key, value in described.items()} == {key: value.shape for key, value in built.items()}


def test_a_stem_begins_as_the_trunk_on_the_averaged_image(scan: tuple[torch.Tensor, torch.Tensor]) -> None:
    trunk = trunk_alone()
    network = started(trunk, fine="none")
    image, coordinates = scan
    with torch.no_grad():
        coarse = trunk(F.avg_pool3d(image, (1, 2, 2)), coordinates).trunk
        result = network(image, coordinates)
    assert coarse.std() > 0.01
    torch.testing.assert_close(result.trunk, coarse, atol=1e-4, rtol=1e-4)
    expected = F.interpolate(coarse, scale_factor=(1.0, 2.0, 2.0), mode="trilinear", align_corners=False)
    torch.testing.assert_close(result.fine, expected, atol=1e-4, rtol=1e-4)


def test_the_stem_sees_more_than_the_average_once_it_learns(scan: tuple[torch.Tensor, torch.Tensor]) -> None:
    network = started(trunk_alone(), fine="none")
    image, coordinates = scan
    network(image, coordinates).fine.square().mean().backward()
    gradient = network.trunk.down[0].first.get_parameter("conv.weight").grad
    assert gradient is not None
    per_sub_voxel = gradient[:, :4].flatten(2)
    assert float((per_sub_voxel[:, 0] - per_sub_voxel[:, 1]).abs().max()) > 1e-6


@pytest.mark.parametrize("fine", ["sub-voxels", "path"])
def test_a_fine_part_begins_as_nothing_and_can_learn(scan: tuple[torch.Tensor, torch.Tensor], fine: str) -> None:
    trunk = trunk_alone()
    without, finer = started(trunk, fine="none"), started(trunk, fine=fine)
    image, coordinates = scan
    torch.testing.assert_close(finer(image, coordinates).fine, without(image, coordinates).fine)
    finer(image, coordinates).fine.square().mean().backward()
    assert finer.fine is not None
    head = finer.fine.head.weight.grad
    assert head is not None
    assert float(head.abs().max()) > 0


def test_an_unknown_fine_part_is_refused() -> None:
    with pytest.raises(ValueError, match="sub-voxels"):
        Segmenter(CLASSES, channels=CHANNELS, fine="everything")


def test_a_trunk_with_a_stride_of_its_own_is_no_start() -> None:
    trunk = Segmenter(CLASSES, channels=CHANNELS, stride=(1, 2, 2), fine="none")
    with pytest.raises(ValueError, match="not a trunk"):
        start_from_trunk(Segmenter(CLASSES, channels=CHANNELS, stride=(1, 2, 2), fine="path"), trunk)
    with pytest.raises(ValueError, match="not a trunk"):
        start_from_trunk(Segmenter(CLASSES + 1, channels=CHANNELS), trunk_alone())


def test_temperature_divides_logits_in_evaluation(scan: tuple[torch.Tensor, torch.Tensor]) -> None:
    network = started(trunk_alone(), fine="path")
    before = network(*scan)
    network.temperature.fill_(2.0)  # type: ignore[operator]
    after = network(*scan)
    torch.testing.assert_close(after.fine, before.fine / 2)
    torch.testing.assert_close(after.trunk, before.trunk / 2)


def test_the_trunk_depends_on_the_noise_level_after_training(
    scan: tuple[torch.Tensor, torch.Tensor],
) -> None:
    network = trunk_alone()
    image, coordinates = F.avg_pool3d(scan[0], (1, 2, 2)), scan[1]
    quiet, loud = torch.full((2,), 5.0), torch.full((2,), -5.0)
    same = [network.velocity(image, coordinates, level) for level in (quiet, loud)]
    torch.testing.assert_close(*same)
    with torch.no_grad():
        network.trunk.down[0].time.weight.normal_()
    different = [network.velocity(image, coordinates, level) for level in (quiet, loud)]
    assert not torch.allclose(*different)


@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 3, 1)])
def test_depth_to_space_undoes_space_to_depth(stride: tuple[int, int, int]) -> None:
    volume = torch.arange(2 * 2 * 4 * 6 * 6.0).reshape(2, 2, 4, 6, 6)
    channels = space_to_depth(volume, stride)
    torch.testing.assert_close(depth_to_space(channels, stride), volume)


def test_channels_of_a_coarse_voxel_are_its_sub_voxels() -> None:
    volume = torch.arange(4 * 4 * 4.0).reshape(1, 1, 4, 4, 4)
    result = space_to_depth(volume, (1, 2, 2))
    assert result[0, :, 2, 1, 0].tolist() == volume[0, 0, 2, 2:4, 0:2].flatten().tolist()


def test_the_pointwise_convolution_is_the_usual_one() -> None:
    layer, usual = PointwiseConv3d(5, 7), torch.nn.Conv3d(5, 7, 1)
    usual.load_state_dict(layer.state_dict())
    x = torch.randn(2, 5, 3, 4, 5, requires_grad=True)
    y = layer(x)
    torch.testing.assert_close(y, usual(x))
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    (expected,) = torch.autograd.grad(usual(x).square().sum(), x)
    torch.testing.assert_close(gradient, expected)


def test_bf16_is_trained_with_only_where_its_convolutions_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bf16_convolutions_agree("cpu")
    cpu, module = torch.device("cpu"), "DiffusionSegmentBackend.networks.bf16_check"
    monkeypatch.setattr(f"{module}.inference_dtype", lambda device: torch.bfloat16)
    assert training_dtype(cpu) is torch.bfloat16
    exact = F.conv3d

    def wrong_when_strided(x: torch.Tensor, weight: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
        y = exact(x, weight, stride=stride, padding=padding)
        return y * 2 if x.dtype is torch.bfloat16 and stride > 1 else y

    monkeypatch.setattr(f"{module}.F.conv3d", wrong_when_strided)
    bf16_convolutions_agree.cache_clear()
    try:
        assert training_dtype(cpu) is torch.float32
    finally:
        bf16_convolutions_agree.cache_clear()
