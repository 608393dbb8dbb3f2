"""The refiner over a whole volume: one estimate of x_0 from the noisy state, tile by tile on features computed once."""

from __future__ import annotations

import torch
from torch import Tensor

from ..diffusion.schedule import log_snr
from ..networks.refiner import Refiner, no_marks
from .features import Stage1
from .marks import clamped
from .progress import Progress, silent
from .sampling import PredictX0, coded


def x0_predictor(
    stage1: Stage1,
    refiner: Refiner,
    device: torch.device,
    *,
    marks: Tensor | None = None,
    show_marks: bool = True,
    progress: Progress = silent,
    total: int = 0,
) -> PredictX0:
    """What `sample_steps` calls: (x_t, alpha_bar, previous x_0) -> probabilities (classes, z, y, x) on the CPU.

    Every estimate is certain of the `marks`, one-hot (classes, z, y, x), which the network sees unless `show_marks` is
    False. `total` is the number of tiles of the whole
    run, for the progress.
    """
    done = 0

    def predict_x0(x_t: Tensor, alpha_bar: float, previous: Tensor | None) -> Tensor:
        level = log_snr(torch.tensor([alpha_bar])).to(device)
        shown = coded(previous) if previous is not None and refiner.self_conditioning else None

        def tile(index: int, place: tuple[slice, slice, slice]) -> Tensor:
            nonlocal done
            progress("refine", done, total)
            done += 1
            cut = (slice(None), *place)
            state = x_t[cut][None].to(device, memory_format=torch.channels_last_3d)
            pyramid = [feature.float() for feature in stage1.features[index]]
            logits = refiner(
                pyramid,
                stage1.coordinates[cut][None].to(device),
                state,
                stage1.pre[cut][None].to(device),
                no_marks(state) if marks is None or not show_marks else marks[cut][None].to(device),
                level,
                None if shown is None else shown[cut][None].to(device),
            )
            return logits.softmax(dim=1)[0]

        estimate = stage1.tiling.blend(tile, channels=refiner.classes)
        return estimate if marks is None else clamped(estimate, marks)

    return predict_x0
