"""How much memory a run takes, and a lack of it told in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import DiffusionSegmentError, ErrorCode


@contextmanager
def memory_errors() -> Iterator[None]:
    """Tell a lack of memory in words.

    Raises:
        DiffusionSegmentError: OUT_OF_GPU_MEMORY or OUT_OF_MEMORY.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DiffusionSegmentError(
            ErrorCode.OUT_OF_GPU_MEMORY, "The graphics card has too little free memory.", hint="Choose the device cpu."
        ) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):
            raise
        raise DiffusionSegmentError(
            ErrorCode.OUT_OF_MEMORY,
            "There is too little memory for this scan.",
            hint="Close programs, or crop the scan.",
        ) from error
