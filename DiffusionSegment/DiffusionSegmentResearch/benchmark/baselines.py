"""Inference time of other networks on the same scan: that of a few tiles, times the number of tiles of the scan.

nnU-Net (Isensee et al. 2021; its residual encoder "L": Isensee et al. 2024) predicts tiles of 128^3 voxels of 1.5 mm
that overlap by half, each in all eight mirror images where mirroring is on. Weights are random: time does not depend
on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.networks.precision import autocast, inference_dtype
from DiffusionSegmentBackend.pipeline.tiling import Tiling
from monai.networks.nets import SegResNet, SwinUNETR
from torch import nn

from .ours import Click
from .record import BenchmarkRow
from .timing import Measured, measure_repeated

ARCHITECTURES = "dynamic_network_architectures"
MIRROR_IMAGES = 8
OVERLAP = 0.5
# The time of one tile by the function that builds the network and the side of the tile.
TileTimes = dict[tuple[Callable[[int], nn.Module], int], Measured[list[float]]]

_FEATURES = (32, 64, 128, 256, 320, 320)
_STRIDES = (1, 2, 2, 2, 2, 2)


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A network for sliding-window inference with cubic tiles of `side` voxels of `spacing_mm`.

    `build(classes)` makes the network with one input channel; `mirrored` means eight passes per tile instead of one.
    """

    name: str
    build: Callable[[int], nn.Module]
    side: int
    spacing_mm: float
    mirrored: bool = False

    def tiles(self, body_mm: tuple[float, float, float]) -> int:
        """Number of forward passes for a box of this size (z, y, x) around the body."""
        z, y, x = (max(self.side, math.ceil(length / self.spacing_mm - 1e-6)) for length in body_mm)
        tiles = len(Tiling((z, y, x), (self.side,) * 3, OVERLAP).tiles)
        return tiles * (MIRROR_IMAGES if self.mirrored else 1)


def plain_unet(classes: int) -> nn.Module:
    """The network of nnU-Net's configuration 3d_fullres, as planned for abdominal CT."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    network: nn.Module = PlainConvUNet(
        1, 6, _FEATURES, n_conv_per_stage=2, n_conv_per_stage_decoder=2, **_layers(classes)
    )
    return network


def residual_unet(classes: int) -> nn.Module:
    """The network of nnU-Net's preset ResEnc-L."""
    from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

    blocks = (1, 3, 4, 6, 6, 6)
    network: nn.Module = ResidualEncoderUNet(
        1, 6, _FEATURES, n_blocks_per_stage=blocks, n_conv_per_stage_decoder=1, **_layers(classes)
    )
    return network


def segresnet(classes: int) -> nn.Module:
    """MONAI's SegResNet (Myronenko 2018) with 32 filters."""
    return SegResNet(init_filters=32, in_channels=1, out_channels=classes)


def swin_unetr(classes: int) -> nn.Module:
    """MONAI's SwinUNETR (Hatamizadeh et al. 2022) with 48 features."""
    return SwinUNETR(in_channels=1, out_channels=classes, feature_size=48)


def _layers(classes: int) -> dict[str, object]:
    return {
        "num_classes": classes,
        "conv_op": nn.Conv3d,
        "kernel_sizes": 3,
        "strides": _STRIDES,
        "conv_bias": True,
        "norm_op": nn.InstanceNorm3d,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }


def default_baselines(*, our_spacing_mm: float) -> list[Baseline]:
    """All networks at 1.5 mm, and nnU-Net's at our spacing too, which isolates the effect of the spacing."""
    networks = [("nnU-Net", plain_unet, 128), ("nnU-Net ResEnc-L", residual_unet, 128)]
    baselines = []
    for name, build, side in networks:
        baselines += [
            Baseline(name=name, build=build, side=side, spacing_mm=1.5),
            Baseline(name=f"{name}, mirrored", build=build, side=side, spacing_mm=1.5, mirrored=True),
            Baseline(name=f"{name}, our grid", build=build, side=side, spacing_mm=our_spacing_mm),
        ]
    return [
        *baselines,
        Baseline(name="SegResNet", build=segresnet, side=128, spacing_mm=1.5),
        Baseline(name="SwinUNETR", build=swin_unetr, side=96, spacing_mm=1.5),
    ]


def check_packages() -> None:
    """Check that the packages of all baselines are installed.

    Raises:
        DiffusionSegmentError: PACKAGE_MISSING.
    """
    missing = [name for name in (ARCHITECTURES, "einops") if find_spec(name) is None]
    if missing:
        raise DiffusionSegmentError(
            ErrorCode.PACKAGE_MISSING,
            f"The Python package {missing[0]} is missing.",
            hint="Install diffusion-segment[benchmark], or leave the baselines out with --no-baselines.",
        )


def timed_tiles(baselines: Sequence[Baseline], device: torch.device, *, classes: int, repeats: int) -> TileTimes:
    """The time of one tile for each network and side among the baselines; each network is built once."""
    keys = dict.fromkeys((baseline.build, baseline.side) for baseline in baselines)
    return {key: time_tile(*key, device, classes=classes, repeats=repeats) for key in keys}


def time_tile(
    build: Callable[[int], nn.Module], side: int, device: torch.device, *, classes: int, repeats: int
) -> Measured[list[float]]:
    """Seconds of one forward pass of a tile (1, 1, side, side, side): the median of `repeats` after a warm-up pass.

    Computed in the precision of our own networks on the device.
    """
    torch.manual_seed(0)
    network = build(classes).eval().requires_grad_(False).to(device)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    tile = torch.rand(1, 1, side, side, side, device=device).contiguous(memory_format=torch.channels_last_3d)

    def forward() -> None:
        with torch.inference_mode(), autocast(device, inference_dtype(device)):
            network(tile)

    return measure_repeated(forward, device, repeats=repeats)


def baseline_row(
    baseline: Baseline, tile: Measured[list[float]], *, scan: tuple[int, int, int], body_mm: tuple[float, float, float]
) -> BenchmarkRow:
    """The row of a baseline: the time of one `tile` times the number of passes for the box around the body."""
    passes = baseline.tiles(body_mm)
    return BenchmarkRow(
        method=baseline.name,
        scan=scan,
        spacing_mm=baseline.spacing_mm,
        tiles=passes,
        timed=len(tile.value),
        network_s=round(passes * tile.seconds, 3),
        processor_s=round(passes * tile.processor_s, 3),
        host_mb=round(tile.host_mb),
        device_mb=None if tile.device_mb is None else round(tile.device_mb),
        load=tile.load,
    )


def diffusion_rows(row: BenchmarkRow, click: Click) -> list[BenchmarkRow]:
    """The time of other reverse processes with our refiner on our tiles, extrapolated from the refiner's time in `row`.

    Plain DDPM (Ho et al. 2020): one chain of 1000 steps from noise, without the time of the features. PD-DDPM (Guo et
    al. 2022): 5 chains of 300 steps from a pre-segmentation, whose time is included.
    """
    tiles = len(click.tiling.tiles)
    timed = row.tiles - tiles
    evaluation_s = row.stages_s["refine"] / timed
    before_s = row.stages_s["bodypart"] + row.stages_s["features"]
    return [
        BenchmarkRow(
            method=name,
            scan=row.scan,
            spacing_mm=row.spacing_mm,
            tiles=tiles * steps * samples + extra,
            timed=timed + extra,
            network_s=round(evaluation_s * tiles * steps * samples + seconds, 3),
            load=row.load,
        )
        for name, steps, samples, extra, seconds in (
            ("plain DDPM, 1000 steps", 1000, 1, 0, 0.0),
            ("PD-DDPM, 300 steps x 5", 300, 5, tiles, before_s),
        )
    ]
