"""Training of the refiner by recycling: x_t is built from predictions, as at inference, never from the ground truth.

Fu et al. 2023 (arXiv 2308.16355) replace the ground truth inside x_t by the model's own prediction. Here that is
the pre-segmentation of the run to come (Guo et al. 2022), the refiner's own answer to it, or a corrupted one, in the
proportion 2 : 1 : 1; t is drawn up to and including T'. The scheme "standard" noises the ground truth instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..diffusion.noise import training_noise
from ..diffusion.schedule import Schedule, add_noise, log_snr
from ..errors import DiffusionSegmentError, ErrorCode
from ..networks.backbone import Backbone
from ..networks.refiner import Refiner, no_constraints
from ..pipeline.sampling import coded
from .corruption import corrupted, simulated_marks
from .data import Case
from .loop import Budget, Training
from .losses import SegmentationLoss
from .patches import patch_batches

SCHEMES = ("recycling", "standard")
_MARKED_SHARE = 0.25
_START_SHARE = 0.3


@dataclass(frozen=True, kw_only=True)
class RefinerRecipe:
    """How x_t is made: scheme, schedule and the noise level alpha_bar at T', 0..1."""

    scheme: str = "recycling"
    schedule: str = "cosine"
    abar_start: float = 0.2

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise DiffusionSegmentError(
                ErrorCode.OPTION, f"There is no scheme '{self.scheme}'.", hint=f"Choose {' or '.join(SCHEMES)}."
            )


def train_refiner(
    cases: Sequence[Case],
    presegmentations: Sequence[NDArray[np.float16]],
    *,
    backbone: Backbone,
    classes: int,
    budget: Budget,
    folder: Path,
    recipe: RefinerRecipe | None = None,
    resume: bool = False,
    patch: int = 64,
    batch: int = 2,
) -> Refiner:
    """Train on the frozen backbone's features and return the moving average.

    `presegmentations` holds the probe's probabilities (classes, z, y, x) of each case on the model's grid.
    """
    recipe = recipe or RefinerRecipe()
    backbone = backbone.to(budget.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    network = Refiner(backbone.channels[:2], classes)
    network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    training = Training(network, budget, folder, resume=resume)
    seed = budget.seed + training.step
    batches = patch_batches(
        cases, classes=classes, patch=patch, batch=batch, augment=True, seed=seed, prior=presegmentations
    )
    step = RefinerStep(network, backbone, budget, recipe, torch.Generator().manual_seed(seed))
    return training.run(lambda _: step.losses(next(batches)), title="refiner")  # type: ignore[return-value]


@dataclass
class RefinerStep:
    """One training step of the refiner."""

    network: Refiner
    backbone: Backbone
    budget: Budget
    recipe: RefinerRecipe
    generator: torch.Generator

    def losses(self, item: dict[str, Tensor]) -> dict[str, Tensor]:
        """Dice and cross-entropy of the estimate of x_0 against the labels."""
        item = {key: value.to(self.budget.device) for key, value in item.items()}
        image = item["image"].contiguous(memory_format=torch.channels_last_3d)
        with torch.no_grad(), self.budget.autocast():
            pyramid = self.backbone.features(image, item["coordinates"])[:2]
        source = self._source(item, pyramid)
        constraints, marked, truth = self._marks(source, item["labels"])
        source = torch.where(marked, truth, source)
        alpha_bar = self._alpha_bar(image.shape[0])
        x_t = add_noise(coded(source), training_noise(source, self.generator), alpha_bar)
        logits = self._predict(pyramid, item["coordinates"], x_t, constraints, alpha_bar)
        return {"dice_ce": SegmentationLoss()(logits, item["labels"])}

    def _source(self, item: dict[str, Tensor], pyramid: list[Tensor]) -> Tensor:
        """What x_t is built from: probabilities (B, classes, z, y, x)."""
        if self.recipe.scheme == "standard":
            return one_hot(item["labels"], self.network.classes)
        prior = item["prior"]
        prior = prior / prior.sum(dim=1, keepdim=True).clamp(min=1e-3)
        choice = float(torch.rand((), generator=self.generator))
        if choice < 0.5:
            return prior
        if choice < 0.75:
            return torch.stack([corrupted(p, self.generator) for p in prior])
        start = Schedule(self.recipe.schedule).at(Schedule(self.recipe.schedule).step_of(self.recipe.abar_start))
        alpha_bar = start.expand(prior.shape[0]).to(prior.device)
        x_t = add_noise(coded(prior), training_noise(prior, self.generator), alpha_bar)
        with torch.no_grad():
            return (
                self._predict(pyramid, item["coordinates"], x_t, no_constraints(x_t), alpha_bar).float().softmax(dim=1)
            )

    def _predict(
        self, pyramid: list[Tensor], coordinates: Tensor, x_t: Tensor, constraints: Tensor, alpha_bar: Tensor
    ) -> Tensor:
        with self.budget.autocast():
            return self.network(pyramid, coordinates, x_t, constraints, log_snr(alpha_bar))

    def _alpha_bar(self, count: int) -> Tensor:
        """Noise levels up to and including T', which has a share of its own because every run starts there."""
        schedule = Schedule(self.recipe.schedule)
        start = schedule.step_of(self.recipe.abar_start)
        t = torch.randint(1, start + 1, (count,), generator=self.generator)
        at_start = torch.rand(count, generator=self.generator) < _START_SHARE
        return schedule.at(torch.where(at_start, torch.full_like(t, start), t)).to(self.budget.device)

    def _marks(self, source: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Simulated corrections: the constraint channels, the marked voxels (B, 1, ...), and the truth one-hot."""
        truth = one_hot(labels, self.network.classes)
        marked = torch.zeros_like(labels, dtype=torch.bool)
        for n in range(labels.shape[0]):
            if float(torch.rand((), generator=self.generator)) < _MARKED_SHARE:
                marked[n, 0] = simulated_marks(source[n], labels[n, 0], self.generator)
        constraints = torch.cat([marked.float(), marked * labels / self.network.classes], dim=1)
        return constraints, marked, truth


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Labels (B, 1, z, y, x) -> float (B, classes, z, y, x)."""
    return F.one_hot(labels[:, 0], classes).movedim(-1, 1).float()
