"""Training of the refiner on the frozen backbone's features, under one of the schemes of `schemes`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

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
from .loop import Budget, Training
from .losses import SegmentationLoss
from .schemes import RefinerRecipe, source_of
from .simulated_reader import random_stroke

_MARKED_SHARE = 0.4


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
    start: Refiner | None = None,
) -> Refiner:
    """Train on the frozen backbone's features and return the moving average; `start` gives the first weights.

    A temperature fitted to the first weights is forgotten.

    `presegmentations` holds the probe's probabilities (classes, z, y, x) of each case on the model's grid; best are
    those of probes that never saw the case, because such mistakes are the ones of new patients.
    """
    recipe = recipe or RefinerRecipe()
    backbone = backbone.to(budget.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    torch.manual_seed(budget.seed)
    shown = recipe.scheme == "self-conditioning"
    network = start.requires_grad_(True) if start else Refiner(backbone.channels[:2], classes, self_conditioning=shown)
    set_temperature(network, 1.0)
    network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    training = Training(network, budget, folder, resume=resume)
    seed = budget.seed + training.step
    batches = patch_batches(
        cases, classes=classes, patch=patch, batch=batch, augment=True, seed=seed, prior=presegmentations
    )
    step = RefinerStep(network, backbone, budget, recipe, torch.Generator().manual_seed(seed))
    trained = training.run(lambda _: step.losses(next(batches)), title=f"refiner, {recipe.scheme}")
    return cast(Refiner, trained)


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

        def predict(x_t: Tensor, alpha_bar: Tensor, pre: Tensor) -> Tensor:
            with torch.no_grad():
                logits = self._predict(pyramid, item["coordinates"], x_t, pre, None, alpha_bar, None)
                return logits.float().softmax(dim=1)

        alpha_bar = self.recipe.noise_levels(image.shape[0], self.generator).to(self.budget.device)
        source = source_of(self.recipe, item["labels"], item["prior"], alpha_bar, predict, self.generator)
        marks = self._marks(source.probabilities, item["labels"], item["drawn"])
        clean = clamped(source.probabilities, marks)
        pre = self._told(source.pre, marks, pyramid)
        x_t = add_noise(coded(clean), training_noise(clean, self.generator), alpha_bar)
        logits = self._predict(pyramid, item["coordinates"], x_t, pre, marks, alpha_bar, source.previous)
        return {"dice_ce": SegmentationLoss()(logits, item["labels"], item["drawn"])}

    def _predict(
        self,
        pyramid: list[Tensor],
        coordinates: Tensor,
        x_t: Tensor,
        pre: Tensor,
        marks: Tensor | None,
        alpha_bar: Tensor,
        previous: Tensor | None,
    ) -> Tensor:
        x_t = x_t.contiguous(memory_format=torch.channels_last_3d)
        with self.budget.autocast():
            return self.network(pyramid, coordinates, x_t, pre, marks, log_snr(alpha_bar), previous)

    def _told(self, pre: Tensor, marks: Tensor, pyramid: list[Tensor]) -> Tensor:
        """The pre-segmentation after the marks were heard, as in the pipeline."""
        return torch.stack(
            [
                spread(pre[n], marks[n], Descriptors(fine_features([level[n : n + 1] for level in pyramid])))
                for n in range(len(pre))
            ]
        )

    def _marks(self, source: Tensor, labels: Tensor, drawn: Tensor) -> Tensor:
        """Simulated corrections in some of the samples, one-hot (B, classes, z, y, x).

        Where an organ was not drawn nobody knows that its prediction is wrong, so nobody corrects it.
        """
        known = drawn[:, :, None, None, None]
        source = torch.cat([source[:, :1] + (source * ~known).sum(dim=1, keepdim=True), (source * known)[:, 1:]], dim=1)
        predicted, truth = source.argmax(dim=1).cpu().numpy(), labels[:, 0].cpu().numpy()
        marks = np.zeros(truth.shape, dtype=np.int64)
        for n in range(len(marks)):
            if float(torch.rand((), generator=self.generator)) < _MARKED_SHARE:
                seed = int(torch.randint(2**31, (), generator=self.generator))
                stroke = random_stroke(predicted[n], truth[n], np.random.default_rng(seed))
                if stroke is not None:
                    marks[n][stroke.marked] = stroke.label + 1
        told = [one_hot_scribbles(torch.from_numpy(mark), self.network.classes) for mark in marks]
        return torch.stack(told).to(labels.device)
