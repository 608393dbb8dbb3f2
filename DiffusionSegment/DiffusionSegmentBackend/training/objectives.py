"""Pretraining objectives of the backbone without labels: diffusion, restoration, distillation of features.

Each objective is a module that contains the backbone and auxiliary layers, and returns the named losses of a batch. The
contrastive objective uses pairs of crops and is in `contrastive`.
"""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..diffusion.noise import training_noise
from ..diffusion.schedule import Schedule, add_noise, log_snr, velocity
from ..networks.backbone import Backbone

_STUDENT_TIMESTEPS = (1, 250)


class DiffusionObjective(nn.Module):
    """Predict the velocity of x_t given body coordinates, t uniform in 1..T (Li et al. 2025)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.schedule = Schedule("linear")

    def forward(self, image: Tensor, coordinates: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Image (B, 1, z, y, x) in -1..1, coordinates (B, 3, z, y, x) normalised -> losses."""
        t = torch.randint(1, self.schedule.timesteps + 1, (image.shape[0],), generator=generator)
        alpha_bar = self.schedule.at(t).to(image.device)
        noise = training_noise(image, generator)
        predicted = self.backbone(add_noise(image, noise, alpha_bar), coordinates, log_snr(alpha_bar))
        return {"velocity": F.mse_loss(predicted.float(), velocity(image, noise, alpha_bar))}


class RestorativeObjective(nn.Module):
    """Denoising and inpainting autoencoder, a baseline for diffusion.

    As in Models Genesis (Zhou et al. 2021): about a sixth of the volume is replaced by noise.
    """

    boxes = 8
    noise_std = 0.15

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor, coordinates: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Image (B, 1, z, y, x) in -1..1, coordinates (B, 3, z, y, x) normalised -> losses."""
        damaged = image + self.noise_std * training_noise(image, generator)
        for sample in damaged:
            for _ in range(self.boxes):
                box = _random_box(image.shape[2:], generator)
                sample[(slice(None), *box)] = training_noise(sample[(slice(None), *box)], generator)
        level = self.backbone.feature_log_snr.expand(image.shape[0])
        restored = self.backbone(damaged, coordinates, level)
        return {"restoration": F.mse_loss(restored.float(), image)}


def _random_box(size: torch.Size, generator: torch.Generator) -> tuple[slice, ...]:
    """A random box whose sides are a sixth to a third of those of the volume."""
    sides = [int(torch.randint(max(1, n // 6), n // 3 + 1, (), generator=generator)) for n in size]
    starts = [int(torch.randint(n - side + 1, (), generator=generator)) for n, side in zip(size, sides, strict=True)]
    return tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))


class StudentObjective(nn.Module):
    """Distil noise-free features: features of the clean scan are trained to match the teacher's features of x_t.

    CleanDIFT (Stracke et al. 2025, arXiv 2412.03439): one pointwise projection per level, conditioned on t, maps the
    features of the student to those of the teacher and is discarded afterwards. Loss: 1 - cosine similarity.
    """

    def __init__(self, teacher: Backbone) -> None:
        super().__init__()
        self.backbone = deepcopy(teacher).requires_grad_(True)
        self.teacher = deepcopy(teacher).eval().requires_grad_(False)
        self.project = nn.ModuleList(nn.Conv3d(c + 1, c, 1) for c in teacher.channels)
        self.schedule = Schedule("linear")

    def forward(self, image: Tensor, coordinates: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Image (B, 1, z, y, x) in -1..1, coordinates (B, 3, z, y, x) normalised -> losses."""
        low, high = _STUDENT_TIMESTEPS
        t = int(torch.randint(low, high + 1, (), generator=generator))
        with torch.no_grad():
            noise = training_noise(image, generator)
            targets = self.teacher.noisy_features(image, coordinates, timestep=t, noise=noise)
        level = float(log_snr(self.schedule.at(t))) / 10.0
        losses = []
        for project, own, target in zip(self.project, self.backbone.features(image, coordinates), targets, strict=True):
            conditioned = torch.cat([own, torch.full_like(own[:, :1], level)], dim=1)
            losses.append(1 - F.cosine_similarity(project(conditioned).float(), target.float(), dim=1).mean())
        return {"cosine": torch.stack(losses).mean()}
