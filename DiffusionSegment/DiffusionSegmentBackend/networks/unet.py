"""The U-Net of the first-generation networks: optionally time-conditioned, returns a pyramid of features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution
from torch import Tensor, nn

from .norm import GROUP, norm_layer

_NORM_GROUPS = 8
_TIME_FREQUENCIES = 16
TIME_FEATURES = 2 * _TIME_FREQUENCIES


def log_snr_embedding(log_snr: Tensor) -> Tensor:
    """Sinusoidal embedding (B, 32) of a log-SNR in -12..12 (B,), with periods from 1 to 100."""
    periods = torch.logspace(0, 2, _TIME_FREQUENCIES, device=log_snr.device)
    angles = 2 * torch.pi * log_snr[:, None].float() / periods
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class TimedBlock(nn.Module):
    """Two 3x3x3 convolutions with group norm; the embedded log-SNR is added between them."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, time_channels: int = 0) -> None:
        super().__init__()
        self.first = convolution(in_channels, out_channels, stride=stride)
        self.second = convolution(out_channels, out_channels)
        self.time = nn.Linear(time_channels, out_channels) if time_channels else None
        if self.time is not None:
            nn.init.zeros_(self.time.weight)
            nn.init.zeros_(self.time.bias)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """(B, in, z, y, x) and (B, time) -> (B, out, z/stride, y/stride, x/stride)."""
        h = self.first(x)
        if self.time is not None and time is not None:
            h = h + self.time(time).to(h.dtype)[:, :, None, None, None]
        result: Tensor = self.second(h)
        return result


def convolution(in_channels: int, out_channels: int, *, stride: int = 1, norm: str = GROUP) -> nn.Module:
    """3x3x3 convolution, a norm of `NORMS`, leaky ReLU (MONAI)."""
    block = Convolution(
        3,
        in_channels,
        out_channels,
        strides=stride,
        kernel_size=3,
        adn_ordering="NA",
        act=("leakyrelu", {"inplace": True}),
        norm=("group", {"num_groups": 1}),
        bias=False,
    )
    block.get_submodule("adn").N = norm_layer(norm, out_channels, groups=_NORM_GROUPS)
    return block


class PyramidUNet(nn.Module):
    """U-Net that returns the decoder features of all levels, `channels[l]` at resolution 1 / 2^l.

    Every side of the input must be a multiple of 2^(levels - 1).
    """

    def __init__(self, in_channels: int, channels: Sequence[int], *, timed: bool) -> None:
        super().__init__()
        time_channels = 64 if timed else 0
        self.embed = nn.Sequential(nn.Linear(TIME_FEATURES, 64), nn.SiLU(), nn.Linear(64, 64)) if timed else None
        inputs = [in_channels, *channels[:-1]]
        self.down = nn.ModuleList(
            TimedBlock(inputs[level], width, stride=1 if level == 0 else 2, time_channels=time_channels)
            for level, width in enumerate(channels)
        )
        self.lift = nn.ModuleList(
            nn.Sequential(nn.Conv3d(channels[level + 1], channels[level], 1), nn.Upsample(scale_factor=2))
            for level in range(len(channels) - 1)
        )
        self.up = nn.ModuleList(
            TimedBlock(2 * channels[level], channels[level], time_channels=time_channels)
            for level in range(len(channels) - 1)
        )

    def forward(self, x: Tensor, log_snr: Tensor | None = None) -> list[Tensor]:
        """(B, in, z, y, x), log-SNR (B,) -> features, finest first: (B, channels[l], z/2^l, y/2^l, x/2^l)."""
        time = self.embed(log_snr_embedding(log_snr)) if self.embed is not None and log_snr is not None else None
        skips = []
        for block in self.down:
            x = block(x, time)
            skips.append(x)
        pyramid = [skips[-1]]
        for level in reversed(range(len(self.up))):
            x = self.up[level](torch.cat([skips[level], self.lift[level](pyramid[0])], dim=1), time)
            pyramid.insert(0, x)
        return pyramid
