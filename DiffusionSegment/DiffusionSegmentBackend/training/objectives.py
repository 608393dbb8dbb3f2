"""What a backbone can be pretrained for without labels: denoising by diffusion, restoration, noise-free features.

Each objective is a module that holds the backbone and whatever else it trains, and turns a batch into named losses.
The contrastive objective needs pairs of crops and lies in `contrastive`.
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
    """Predict the velocity of x_t given body coordinates, t uniform in 1..T (Li et al. 2025; target: Salimans, Ho)."""

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
    """Restore a scan with noise and blanked boxes: the denoising, inpainting autoencoder diffusion is held against.

    Noise and blanks as in Models Genesis (Zhou et al. 2021): a sixth of the volume or so is painted over with noise.
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
        level = self.backbone.feature_log_snr.expand(image.shape[0])  # type: ignore[operator]
        restored = self.backbone(damaged, coordinates, level)
        return {"restoration": F.mse_loss(restored.float(), image)}


def _random_box(size: torch.Size, generator: torch.Generator) -> tuple[slice, ...]:
    """A box whose sides are a sixth to a third of the volume's."""
    sides = [int(torch.randint(max(1, n // 6), n // 3 + 1, (), generator=generator)) for n in size]
    starts = [int(torch.randint(n - side + 1, (), generator=generator)) for n, side in zip(size, sides, strict=True)]
    return tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))


class StudentObjective(nn.Module):
    """Distil noise-free features: the student sees the clean scan and meets the teacher's features of x_t.

    CleanDIFT (Stracke et al. 2025, arXiv 2412.03439): one pointwise projection a level, told t, maps the student's
    features onto the teacher's; only its input, the student's features, is used afterwards. Loss: 1 - cosine.
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
            wanted = self.teacher.noisy_features(image, coordinates, timestep=t, noise=noise)
        level = float(log_snr(self.schedule.at(t))) / 10.0
        losses = []
        for project, own, target in zip(self.project, self.backbone.features(image, coordinates), wanted, strict=True):
            told = torch.cat([own, torch.full_like(own[:, :1], level)], dim=1)
            losses.append(1 - F.cosine_similarity(project(told).float(), target.float(), dim=1).mean())
        return {"cosine": torch.stack(losses).mean()}
