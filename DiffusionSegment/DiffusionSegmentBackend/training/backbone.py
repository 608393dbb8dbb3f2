"""Diffusion pretraining of the backbone: denoise CT patches given their body coordinates; labels are not used.

Li et al. 2025 (arXiv 2501.19265): x_t and the coordinates enter together. Target is the velocity (Salimans and Ho
2022), which stays well scaled at the small t where features are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..diffusion.noise import training_noise
from ..diffusion.schedule import Schedule, add_noise, log_snr, velocity
from ..networks.backbone import Backbone
from .data import Case
from .loop import Budget, Training
from .patches import patch_batches


def train_backbone(
    cases: Sequence[Case],
    *,
    classes: int,
    budget: Budget,
    folder: Path,
    resume: bool = False,
    patch: int = 64,
    batch: int = 2,
    use_coordinates: bool = True,
) -> Backbone:
    """Pretrain and return the moving average. `classes` only balances where patches are cut.

    `use_coordinates` = False blanks the coordinates: the ablation of the paper.
    """
    network = Backbone().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    training = Training(network, budget, folder, resume=resume)
    seed = budget.seed + training.step
    batches = patch_batches(cases, classes=classes, patch=patch, batch=batch, augment=True, seed=seed)
    schedule = Schedule("linear")
    generator = torch.Generator().manual_seed(seed)

    def losses(_: float) -> dict[str, Tensor]:
        item = next(batches)
        x0 = item["image"].to(budget.device, memory_format=torch.channels_last_3d)
        coordinates = item["coordinates"].to(budget.device) * float(use_coordinates)
        t = torch.randint(1, schedule.timesteps + 1, (x0.shape[0],), generator=generator)
        alpha_bar = schedule.at(t).to(budget.device)
        noise = training_noise(x0, generator)
        with budget.autocast():
            predicted = network(add_noise(x0, noise, alpha_bar), coordinates, log_snr(alpha_bar))
        return {"velocity": F.mse_loss(predicted.float(), velocity(x0, noise, alpha_bar))}

    return training.run(losses, title="backbone")  # type: ignore[return-value]
