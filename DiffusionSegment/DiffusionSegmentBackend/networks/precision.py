"""Which numbers the networks multiply: bfloat16 where the processor has instructions for it, else float32.

bfloat16 halves what moves through memory; weights, probabilities and sums stay float32.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

from ..errors import unknown_name

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def inference_dtype(device: torch.device, precision: str = "auto") -> torch.dtype:
    """What `precision` means on a device; "auto" is bfloat16 where that is native.

    Raises:
        DiffusionSegmentError: OPTION for a precision that is not known.
    """
    if precision != "auto":
        if precision not in PRECISIONS:
            raise unknown_name("precision", precision, ("auto", *PRECISIONS))
        return PRECISIONS[precision]
    return torch.bfloat16 if _is_native(device) else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Convolutions and products in `dtype` inside; the rest, and everything where that is float32, as it is."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16)


def _is_native(device: torch.device) -> bool:
    if device.type == "cuda":
        # Cards before Ampere would have to emulate it.
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # Emulated, as on processors without these instructions, it is slower than float32.
    known = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return device.type == "cpu" and any(ask() for ask in known if ask is not None)
