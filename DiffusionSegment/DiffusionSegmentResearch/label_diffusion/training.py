"""Training of `LabelDenoiser` on pre-segmentations of which many are corrupted, lack an organ, or are not shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.datasets.patches import patch_batches
from DiffusionSegmentBackend.diffusion.schedule import add_noise, log_snr
from DiffusionSegmentBackend.networks.space_to_depth import space_to_depth
from DiffusionSegmentBackend.training.corruption import corrupted, without_organ
from DiffusionSegmentBackend.training.label_loss import label_loss
from DiffusionSegmentBackend.training.loop import RunOptions, Training
from DiffusionSegmentBackend.training.losses import marginalised
from numpy.typing import NDArray
from torch import Tensor

from .coarse import POOL, pooled
from .network import LabelDenoiser, LogitDistribution
from .process import Process, drawn_labels

PATCH = 64
BATCH = 2
_DRAWS = 4


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How states and pre-segmentations of the training steps arise.

    Attributes:
        process: scale, noise and levels of the states; None for a deterministic network, whose state is zero.
        null_share: share of the steps in which the pre-segmentation is not shown.
        deleted_share: share in which it lacks an organ of the patch.
        corrupted_share: share with another simulated error.
        recycled_share: share of the steps whose state comes from a sampled prediction of the network (Fu et al. 2023,
            arXiv 2308.16355), and not from the pre-segmentation.
    """

    process: Process | None
    null_share: float = 0.3
    deleted_share: float = 0.15
    corrupted_share: float = 0.2
    recycled_share: float = 0.5


def train_denoiser(
    network: LabelDenoiser,
    cases: Sequence[Case],
    presegmentations: Sequence[NDArray[np.float16]],
    *,
    recipe: Recipe,
    run: RunOptions,
) -> LabelDenoiser:
    """Train `network` from its present weights; returns the moving average in evaluation mode.

    Args:
        network: changed in place.
        cases: labelled scans with body coordinates; a case may be listed with several pre-segmentations.
        presegmentations: probabilities (classes, z, y, x) of each case.
        recipe: states and pre-segmentations.
        run: budget, folder of checkpoint and log.

    Raises:
        DiffusionSegmentError: CHECKPOINT, DISK_FULL.
    """
    network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    training = Training(network, run.budget, run.folder, resume=run.resume)
    seed = run.budget.seed + training.step
    batches: Iterator[dict[str, Tensor]] = patch_batches(
        cases, classes=network.classes, patch=PATCH, batch=BATCH, augment=True, seed=seed, prior=presegmentations
    )
    step = DenoiserStep(network, recipe, torch.Generator().manual_seed(seed))

    def gradients(_: float) -> dict[str, Tensor]:
        losses = step.losses(next(batches))
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        return {name: value.detach() for name, value in losses.items()}

    return training.run_steps(gradients, title=run.title, until=run.until, report=run.report)


@dataclass
class DenoiserStep:
    """Computes the losses of one training step."""

    network: LabelDenoiser
    recipe: Recipe
    generator: torch.Generator

    def losses(self, item: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses of a batch of `patch_batches`: Dice and cross-entropy of the mean, likelihood of the draws."""
        item = on_coarse_grid(item)
        shown = [self._condition(p) for p in item["prior"]]
        pre, given = torch.stack([p for p, _ in shown]), torch.tensor([g for _, g in shown])
        state, alpha_bar = self._state(item, pre, given)
        logits = self._predicted(item, pre, given, state, alpha_bar)
        losses = {"dice_ce": label_loss(logits.mean, item["labels"], item["drawn"])}
        if logits.factors is not None:
            losses["draws"] = self._draw_loss(logits, item)
        return losses

    def _uniform(self) -> float:
        return float(torch.rand((), generator=self.generator))

    def _condition(self, pre: Tensor) -> tuple[Tensor, float]:
        """A pre-segmentation of the recipe, and whether it is shown."""
        share, recipe = self._uniform(), self.recipe
        if share < recipe.null_share:
            return torch.full_like(pre, 1 / len(pre)), 0.0
        share -= recipe.null_share
        if share < recipe.deleted_share:
            return without_organ(pre, self.generator), 1.0
        share -= recipe.deleted_share
        return (corrupted(pre, self.generator) if share < recipe.corrupted_share else pre), 1.0

    def _state(self, item: dict[str, Tensor], pre: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised states, and alpha_bar (B,)."""
        process = self.recipe.process
        if process is None:
            return torch.zeros_like(pre), torch.full((len(pre),), 1e-4)
        alpha_bar = process.levels(len(pre), self.generator)
        source = pre
        if self._uniform() < self.recipe.recycled_share and bool((alpha_bar > process.alpha_bars(1)[0]).any()):
            source = self._recycled(process, item, pre, given, alpha_bar)
        return self._noised(process, source, alpha_bar), alpha_bar

    @torch.no_grad()
    def _recycled(
        self, process: Process, item: dict[str, Tensor], pre: Tensor, given: Tensor, alpha_bar: Tensor
    ) -> Tensor:
        """Labels drawn from the prediction at T', for the patches whose level is below it."""
        start = torch.full_like(alpha_bar, process.alpha_bars(1)[0])
        logits = self._predicted(item, pre, given, self._noised(process, pre, start), start)
        probabilities = logits.mean.float().softmax(dim=1)
        uniform = torch.rand(probabilities[:, 0].shape, generator=self.generator)
        drawn = torch.stack([drawn_labels(p, u) for p, u in zip(probabilities, uniform, strict=True)])
        return torch.where((alpha_bar > start)[:, None, None, None, None], drawn, pre)

    def _noised(self, process: Process, source: Tensor, alpha_bar: Tensor) -> Tensor:
        z, y, x = source.shape[2:]
        noise = torch.stack(
            [process.noise((z, y, x), channels=source.shape[1], generator=self.generator) for _ in source]
        )
        x_t = add_noise(process.coded(source), noise, alpha_bar)
        return process.normalised(x_t, alpha_bar[:, None, None, None, None])

    def _predicted(
        self, item: dict[str, Tensor], pre: Tensor, given: Tensor, state: Tensor, alpha_bar: Tensor
    ) -> LogitDistribution:
        layout = torch.channels_last_3d
        result: LogitDistribution = self.network(
            item["image"].contiguous(memory_format=layout),
            item["coordinates"],
            pre,
            given,
            state.contiguous(memory_format=layout),
            log_snr(alpha_bar),
        )
        return result

    def _draw_loss(self, logits: LogitDistribution, item: dict[str, Tensor]) -> Tensor:
        """-log of the mean likelihood of a patch under draws of the logits, per voxel (Monteiro et al. 2020, eq. 5)."""
        likelihoods = []
        for _ in range(_DRAWS):
            coefficients = torch.randn((len(logits.mean), self.network.rank), generator=self.generator)
            drawn = marginalised(logits.drawn(coefficients).float(), item["drawn"])
            likelihood = drawn.log_softmax(dim=1).gather(1, item["labels"]).mean(dim=1)
            likelihoods.append(likelihood.flatten(1).sum(dim=1))
        total = torch.logsumexp(torch.stack(likelihoods), dim=0) - np.log(_DRAWS)
        loss: Tensor = -total.mean() / item["labels"][0, 0].numel()
        return loss


def on_coarse_grid(item: dict[str, Tensor]) -> dict[str, Tensor]:
    """A batch on the coarse grid: means, and the labels of the pooled voxels (B, 8, z, y, x).

    Interpolated probabilities get the background with which they sum to 1.
    """
    organs = pooled(item["prior"][:, 1:]).clamp(min=0)
    background = (1 - organs.sum(dim=1, keepdim=True)).clamp(min=0)
    return {
        "image": pooled(item["image"]),
        "coordinates": pooled(item["coordinates"]),
        "prior": torch.cat([background, organs], dim=1).contiguous(memory_format=torch.channels_last_3d),
        "labels": space_to_depth(item["labels"], (POOL, POOL, POOL)),
        "drawn": item["drawn"],
    }
