"""Numerical precision: bfloat16 on devices with native support, else float32.

With bfloat16, weights, probabilities and sums stay float32.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

from ..errors import unknown_name

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def inference_dtype(device: torch.device, precision: str = "auto") -> torch.dtype:
    """The dtype for `precision` on a device; "auto" is bfloat16 where it is native.

    Raises:
        DiffusionSegmentError: OPTION for an unknown precision.
    """
    if precision != "auto":
        if precision not in PRECISIONS:
            raise unknown_name("precision", precision, ("auto", *PRECISIONS))
        return PRECISIONS[precision]
    return torch.bfloat16 if _is_native(device) else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Autocast to bfloat16 if `dtype` is bfloat16, else a disabled autocast context."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16)


def _is_native(device: torch.device) -> bool:
    if device.type == "cuda":
        # GPUs before Ampere emulate it.
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # CPUs without these instructions emulate it, which is slower than float32.
    known = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return device.type == "cpu" and any(ask() for ask in known if ask is not None)
