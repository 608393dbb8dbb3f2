"""Training of the refiner on features of the frozen backbone, under one of the schemes of `schemes`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..datasets.labelled_cases import Case
from ..datasets.patches import patch_batches
from ..diffusion.noise import training_noise
from ..diffusion.schedule import add_noise, log_snr
from ..networks.backbone import Backbone, fine_features
from ..networks.refiner import Refiner
from ..networks.temperature import set_temperature
from ..pipeline.constraints import clamped, one_hot_scribbles
from ..pipeline.interactive.scribbles import Descriptors, spread
from ..pipeline.sampling import coded
from .loop import Budget, RunOptions, Training
from .losses import SegmentationLoss
from .schemes import RefinerRecipe, source_of
from .simulated_reader import random_stroke

_SCRIBBLE_PROBABILITY = 0.4


def train_refiner(
    cases: Sequence[Case],
    presegmentations: Sequence[NDArray[np.float16]],
    *,
    backbone: Backbone,
    recipe: RefinerRecipe,
    run: RunOptions,
    patch: int = 64,
    batch: int = 2,
    start: Refiner | None = None,
) -> Refiner:
    """Train a refiner on features of the frozen backbone.

    Args:
        cases: Labelled scans with body coordinates.
        presegmentations: Probabilities (classes, z, y, x) of the probe for each case on the model's grid. Those of
            probes that were not trained on the case represent the errors on new patients best.
        backbone: Computes the features; it is not trained.
        recipe: Training scheme and noise schedule.
        run: Budget, folder of checkpoint and log.
        patch: Side of a patch in voxels.
        batch: Patches per step.
        start: Initial weights, random by default. Its temperature is reset to 1.

    Returns:
        The moving average of the network.
    """
    budget, classes = run.budget, len(presegmentations[0])
    backbone = backbone.to(budget.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    torch.manual_seed(budget.seed)
    self_conditioning = recipe.scheme == "self-conditioning"
    if start is not None:
        network = start.requires_grad_(True)
    else:
        network = Refiner(backbone.channels[:2], classes, self_conditioning=self_conditioning)
    set_temperature(network, 1.0)
    network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    training = Training(network, budget, run.folder, resume=run.resume)
    seed = budget.seed + training.step
    batches = patch_batches(
        cases, classes=classes, patch=patch, batch=batch, augment=True, seed=seed, prior=presegmentations
    )
    step = RefinerStep(network, backbone, budget, recipe, torch.Generator().manual_seed(seed))
    trained: Refiner = training.run(lambda _: step.losses(next(batches)), title=run.title)
    return trained


@dataclass
class RefinerStep:
    """Computes the losses of one training step of the refiner."""

    network: Refiner
    backbone: Backbone
    budget: Budget
    recipe: RefinerRecipe
    generator: torch.Generator

    def losses(self, item: dict[str, Tensor]) -> dict[str, Tensor]:
        """Dice and cross-entropy of the estimate of x_0 for a batch of `patch_batches`."""
        item = {key: value.to(self.budget.device) for key, value in item.items()}
        pyramid = self._features(item)
        alpha_bar = self.recipe.noise_levels(len(item["image"]), self.generator).to(self.budget.device)
        predict = partial(self._probabilities, pyramid, item["coordinates"])
        source = source_of(self.recipe, item["labels"], item["prior"], alpha_bar, predict, self.generator)
        scribbles = self._simulated_scribbles(source.probabilities, item["labels"], item["drawn"])
        clean = clamped(source.probabilities, scribbles)
        pre = self._corrected(source.pre, scribbles, pyramid)
        x_t = add_noise(coded(clean), training_noise(clean, self.generator), alpha_bar)
        logits = self._logits(pyramid, item["coordinates"], x_t, pre, scribbles, alpha_bar, source.previous)
        return {"dice_ce": SegmentationLoss()(logits, item["labels"], item["drawn"])}

    def _features(self, item: dict[str, Tensor]) -> list[Tensor]:
        """The backbone's two finest levels."""
        image = item["image"].contiguous(memory_format=torch.channels_last_3d)
        with torch.no_grad(), self.budget.autocast():
            return self.backbone.features(image, item["coordinates"])[:2]

    @torch.no_grad()
    def _probabilities(
        self, pyramid: list[Tensor], coordinates: Tensor, x_t: Tensor, alpha_bar: Tensor, pre: Tensor
    ) -> Tensor:
        """Probabilities of x_0 (B, classes, z, y, x) predicted without scribbles and without gradients."""
        return self._logits(pyramid, coordinates, x_t, pre, None, alpha_bar, None).float().softmax(dim=1)

    def _logits(
        self,
        pyramid: list[Tensor],
        coordinates: Tensor,
        x_t: Tensor,
        pre: Tensor,
        scribbles: Tensor | None,
        alpha_bar: Tensor,
        previous: Tensor | None,
    ) -> Tensor:
        x_t = x_t.contiguous(memory_format=torch.channels_last_3d)
        with self.budget.autocast():
            logits: Tensor = self.network(pyramid, coordinates, x_t, pre, scribbles, log_snr(alpha_bar), previous)
        return logits

    def _corrected(self, pre: Tensor, scribbles: Tensor, pyramid: list[Tensor]) -> Tensor:
        """The pre-segmentation after the scribbles were propagated, as in the pipeline."""
        return torch.stack(
            [
                spread(pre[n], scribbles[n], Descriptors(fine_features([level[n : n + 1] for level in pyramid])))
                for n in range(len(pre))
            ]
        )

    def _simulated_scribbles(self, probabilities: Tensor, labels: Tensor, drawn: Tensor) -> Tensor:
        """Simulated corrections in a random subset of the samples, one-hot (B, classes, z, y, x).

        Predictions of classes that are not annotated count as background, as it is unknown whether they are wrong.
        """
        known = drawn[:, :, None, None, None]
        background = probabilities[:, :1] + (probabilities * ~known).sum(dim=1, keepdim=True)
        probabilities = torch.cat([background, (probabilities * known)[:, 1:]], dim=1)
        predicted, truth = probabilities.argmax(dim=1).cpu().numpy(), labels[:, 0].cpu().numpy()
        scribbles = np.zeros(truth.shape, dtype=np.int64)
        for n in range(len(scribbles)):
            if float(torch.rand((), generator=self.generator)) < _SCRIBBLE_PROBABILITY:
                seed = int(torch.randint(2**31, (), generator=self.generator))
                stroke = random_stroke(predicted[n], truth[n], np.random.default_rng(seed))
                if stroke is not None:
                    scribbles[n][stroke.voxels] = stroke.label + 1
        one_hot = [one_hot_scribbles(torch.from_numpy(scribble), self.network.classes) for scribble in scribbles]
        return torch.stack(one_hot).to(labels.device)
