"""Random windowing: a narrower or shifted intensity window.

It improved Dice by 2 to 4 points on poorly timed contrast (arXiv 2510.08116). The new window is always inside the
model's window, to which images may have been clipped.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from .patch_batch import PatchBatch
from .random_numbers import uniform

_MIN_WIDTH_SHARE = 0.5
_MAX_SHIFT_SHARE = 0.1


def random_window(batch: PatchBatch, generator: torch.Generator, *, window: tuple[float, float]) -> PatchBatch:
    """Clip each patch to a window of 50 to 100 % of the width of `window` (HU) and rescale it to `window`.

    The centre is shifted by up to a tenth of the width, with the new window inside `window`.
    """
    low, high = window
    size, device = (len(batch.image), 1, 1, 1, 1), batch.image.device
    width = (high - low) * uniform(size, _MIN_WIDTH_SHARE, 1.0, generator=generator, device=device)
    shift = (high - low) * uniform(size, -_MAX_SHIFT_SHARE, _MAX_SHIFT_SHARE, generator=generator, device=device)
    max_shift = (high - low - width) / 2
    new_low = (low + high) / 2 + torch.maximum(torch.minimum(shift, max_shift), -max_shift) - width / 2
    share = ((batch.image - new_low) / width).clamp(0, 1)
    return replace(batch, image=low + (high - low) * share)
