"""The trunk of the second-generation network: a time-conditioned U-Net with a light decoder.

The finest level is the most expensive: the encoder has one convolution there and two at coarser levels, the decoder one
per level, and skip connections are added, not concatenated. Light decoders cost little accuracy (EffiDec3D, Rahman and
Marculescu, CVPR 2025).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .norm import GROUP
from .pointwise import PointwiseConv3d
from .unet import TIME_FEATURES, convolution, log_snr_embedding

DEFAULT_CHANNELS = (32, 64, 128, 192, 256)
_TIME_CHANNELS = 64


class Stage(nn.Module):
    """3x3x3 convolutions with norm at one resolution; the embedded log-SNR is added after the first."""

    def __init__(
        self, in_channels: int, out_channels: int, *, convolutions: int, stride: int = 1, norm: str = GROUP
    ) -> None:
        super().__init__()
        self.first = convolution(in_channels, out_channels, stride=stride, norm=norm)
        self.rest = nn.ModuleList(convolution(out_channels, out_channels, norm=norm) for _ in range(convolutions - 1))
        self.time = nn.Linear(_TIME_CHANNELS, out_channels)
        nn.init.zeros_(self.time.weight)
        nn.init.zeros_(self.time.bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, in, z, y, x) and (B, 64) -> (B, out, z / stride, y / stride, x / stride)."""
        h: Tensor = self.first(x)
        h = h + self.time(time).to(h.dtype)[:, :, None, None, None]
        for block in self.rest:
            h = block(h)
        return h


class Trunk(nn.Module):
    """U-Net that returns the decoder features of all levels, `channels[l]` at resolution 1 / 2^l.

    Every side of the input must be a multiple of 2^(levels - 1).
    """

    def __init__(self, in_channels: int, channels: Sequence[int] = DEFAULT_CHANNELS, *, norm: str = GROUP) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Linear(TIME_FEATURES, _TIME_CHANNELS), nn.SiLU(), nn.Linear(_TIME_CHANNELS, _TIME_CHANNELS)
        )
        inputs = [in_channels, *channels[:-1]]
        self.down = nn.ModuleList(
            Stage(inputs[level], width, convolutions=1 if level == 0 else 2, stride=1 if level == 0 else 2, norm=norm)
            for level, width in enumerate(channels)
        )
        self.lift = nn.ModuleList(
            PointwiseConv3d(channels[level + 1], channels[level]) for level in range(len(channels) - 1)
        )
        self.up = nn.ModuleList(Stage(width, width, convolutions=1, norm=norm) for width in channels[:-1])

    def forward(self, x: Tensor, log_snr: Tensor) -> list[Tensor]:
        """(B, in, z, y, x), log-SNR (B,) -> features, finest first: (B, channels[l], z / 2^l, y / 2^l, x / 2^l)."""
        time = self.embed(log_snr_embedding(log_snr))
        skips = []
        for stage in self.down:
            x = stage(x, time)
            skips.append(x)
        pyramid = [skips[-1]]
        for level in reversed(range(len(self.up))):
            lifted = F.interpolate(self.lift[level](pyramid[0]), scale_factor=2.0)
            pyramid.insert(0, self.up[level](skips[level] + lifted, time))
        return pyramid
