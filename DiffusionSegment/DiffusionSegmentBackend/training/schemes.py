"""Training schemes of the refiner, which differ in the label map that is noised to x_t.

Fu et al. 2023 (arXiv 2308.16355): noising the ground truth leads to a mismatch between training and inference, which is
resolved by recycling the prediction of the network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..diffusion.noise import training_noise
from ..diffusion.schedule import Schedule, add_noise
from ..errors import unknown_name
from ..pipeline.sampling import coded
from .corruption import corrupted

SCHEMES = ("recycling", "standard", "self-conditioning", "one-step", "from-noise", "deterministic")
_START_SHARE = 0.3
_PURE_NOISE = 1e-4

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class RefinerRecipe:
    """Training scheme, noise schedule, alpha_bar at T' (0..1), and the share of corrupted sources.

    recycling: x_t from the pre-segmentation, the prediction of the network for it, or a corrupted one; t up to T'.
    standard: x_t from the ground truth, t up to T (Ho et al. 2020).
    self-conditioning: standard, with the first estimate as an input in half of the steps (Chen et al. 2022).
    one-step: x_t from the prediction at x_(t + 1) made from the ground truth (Fu et al. 2023, MICCAI workshop).
    from-noise: x_t from the prediction at x_T, pure noise (Fu et al. 2023, the paper's recycling).
    deterministic: no noise and one pass over the sources of "recycling": the baseline for diffusion.
    """

    scheme: str = "recycling"
    schedule: str = "cosine"
    abar_start: float = 0.2
    corrupted_share: float = 0.25

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise unknown_name("scheme", self.scheme, SCHEMES)

    @property
    def starts_from_presegmentation(self) -> bool:
        """Whether inference starts from the pre-segmentation at T', so that higher noise levels do not occur."""
        return self.scheme in ("recycling", "deterministic")

    def noise_levels(self, count: int, generator: torch.Generator) -> Tensor:
        """Random alpha_bar (count,); T' has a higher probability, because inference starts there."""
        schedule = Schedule(self.schedule)
        if self.scheme == "deterministic":
            return torch.ones(count)
        last = schedule.step_of(self.abar_start) if self.starts_from_presegmentation else schedule.timesteps
        return schedule.random_levels(count, last, generator, last_share=_START_SHARE)


@dataclass(frozen=True)
class Source:
    """The source of x_t and the pre-segmentation as input: probabilities (B, classes, z, y, x).

    `previous` is the first estimate of x_0 for self-conditioning.
    """

    probabilities: Tensor
    pre: Tensor
    previous: Tensor | None = None


def source_of(
    recipe: RefinerRecipe,
    labels: Tensor,
    prior: Tensor,
    alpha_bar: Tensor,
    predict: Predict,
    generator: torch.Generator,
) -> Source:
    """The source of x_t under the recipe.

    Args:
        recipe: Training scheme.
        labels: (B, 1, z, y, x).
        prior: The pre-segmentation (B, classes, z, y, x).
        alpha_bar: (B,), noise level of the training step.
        predict: predict(x_t, alpha_bar, pre) returns probabilities without gradients.
        generator: Source of random numbers.
    """
    truth = one_hot(labels, prior.shape[1])
    prior = torch.cat([1 - prior[:, 1:].sum(dim=1, keepdim=True), prior[:, 1:]], dim=1).clamp(min=0)
    if recipe.scheme == "standard":
        return Source(truth, prior)
    if recipe.scheme == "self-conditioning":
        x_t = add_noise(coded(truth), training_noise(truth, generator), alpha_bar)
        is_conditioned = float(torch.rand((), generator=generator)) < 0.5
        return Source(truth, prior, coded(predict(x_t, alpha_bar, prior)) if is_conditioned else None)
    if recipe.scheme == "one-step":
        earlier = _one_step_noisier(alpha_bar, recipe.schedule)
        x_t = add_noise(coded(truth), training_noise(truth, generator), earlier)
        return Source(predict(x_t, earlier, prior), prior)
    if recipe.scheme == "from-noise":
        noise = torch.full_like(alpha_bar, _PURE_NOISE)
        return Source(predict(training_noise(truth, generator), noise, prior), prior)
    return _recycled(recipe, prior, predict, generator)


def _recycled(recipe: RefinerRecipe, prior: Tensor, predict: Predict, generator: torch.Generator) -> Source:
    choice = float(torch.rand((), generator=generator))
    if choice < recipe.corrupted_share:
        damaged = torch.stack([corrupted(p, generator) for p in prior])
        return Source(damaged, damaged)
    if choice < 0.75 or recipe.scheme == "deterministic":
        return Source(prior, prior)
    schedule = Schedule(recipe.schedule)
    start = schedule.at(schedule.step_of(recipe.abar_start)).expand(prior.shape[0]).to(prior.device)
    x_t = add_noise(coded(prior), training_noise(prior, generator), start)
    return Source(predict(x_t, start, prior), prior)


def _one_step_noisier(alpha_bar: Tensor, name: str) -> Tensor:
    schedule = Schedule(name)
    steps = [min(schedule.timesteps, schedule.step_of(float(a)) + 1) for a in alpha_bar]
    return schedule.at(torch.tensor(steps)).to(alpha_bar.device)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Labels (B, 1, z, y, x) -> float (B, classes, z, y, x)."""
    return F.one_hot(labels[:, 0], classes).movedim(-1, 1).float()
