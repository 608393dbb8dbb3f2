"""Check whether bfloat16 convolutions are correct on this machine.

oneDNN 3.12 on processors with AMX gives wrong results for strided 3D convolutions whose output is one voxel wide
(PyTorch issue 169688). Coarsest levels here are wider (`MIN_DEEPEST_SIDE`), and before a training in bfloat16 the same
kinds of convolution are compared with float32.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import inference_dtype

# Minimum voxels along each side of the coarsest level of a network.
MIN_DEEPEST_SIDE = 2
_CHANNELS = (32, 64)
_TOLERANCE = 0.05


def training_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where it is native and its convolutions agree with float32, else float32."""
    dtype = inference_dtype(device)
    return dtype if dtype is torch.float32 or bf16_convolutions_agree(device.type) else torch.float32


@lru_cache
def bf16_convolutions_agree(device: str, widths: tuple[int, ...] = (MIN_DEEPEST_SIDE, 3, 4)) -> bool:
    """Whether 3x3x3 convolutions of stride 1 and 2 in bfloat16, forward and backward, agree with those in float32.

    `widths` are the output widths to test.
    """
    return all(_agree(device, width, stride) for width in widths for stride in (1, 2))


def _agree(device: str, width: int, stride: int) -> bool:
    generator = torch.Generator().manual_seed(width * 10 + stride)
    inner, outer = _CHANNELS
    x = torch.randn((1, inner, 4, 4, width * stride), generator=generator).to(device)
    weight = (torch.randn((outer, inner, 3, 3, 3), generator=generator) * (27 * inner) ** -0.5).to(device)
    exact = _results(x, weight, stride)
    quick = _results(x.bfloat16(), weight.bfloat16(), stride)
    return all(bool((q.float() - e).norm() <= _TOLERANCE * e.norm()) for q, e in zip(quick, exact, strict=True))


def _results(x: Tensor, weight: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Output of a convolution, and the gradients of half its squared norm for input and weight."""
    x, weight = (t.clone(memory_format=torch.channels_last_3d).requires_grad_() for t in (x, weight))
    y = F.conv3d(x, weight, stride=stride, padding=1)
    of_x, of_weight = torch.autograd.grad(y, (x, weight), y.detach())
    return y.detach(), of_x, of_weight
