"""Training of the probe on the backbone's features, frozen as in Li et al. 2025, or with the backbone fine-tuned.

Fine-tuning follows vox2vec (Goncharov et al. 2023): the head learns first, the backbone joins in after a share of the
run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..networks.backbone import Backbone
from ..networks.probe import Probe
from .data import Case
from .loop import Budget, Training
from .losses import SegmentationLoss
from .patches import patch_batches

_FROZEN_SHARE = 0.05


class ProbedBackbone(nn.Module):
    """Backbone and probe as one trainable network."""

    def __init__(self, backbone: Backbone, probe: Probe) -> None:
        super().__init__()
        self.backbone = backbone
        self.probe = probe

    def forward(self, image: Tensor, coordinates: Tensor) -> Tensor:
        """Image (B, 1, ...) in -1..1, coordinates (B, 3, ...) normalised -> logits (B, classes, ...)."""
        return self.probe(self.backbone.features(image, coordinates))


def train_probe(
    cases: Sequence[Case],
    *,
    backbone: Backbone,
    classes: int,
    budget: Budget,
    folder: Path,
    resume: bool = False,
    patch: int = 64,
    batch: int = 2,
    finetune: bool = False,
) -> ProbedBackbone:
    """Train and return the moving averages of probe and backbone; the latter is unchanged unless `finetune`."""
    backbone.requires_grad_(finetune)
    network = ProbedBackbone(backbone, Probe(backbone.channels, classes))
    network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    training = Training(network, budget, folder, resume=resume)
    batches = patch_batches(
        cases, classes=classes, patch=patch, batch=batch, augment=True, seed=budget.seed + training.step
    )
    loss = SegmentationLoss()

    def losses(progress: float) -> dict[str, Tensor]:
        item = next(batches)
        backbone.requires_grad_(finetune and progress >= _FROZEN_SHARE)
        image = item["image"].to(budget.device, memory_format=torch.channels_last_3d)
        with budget.autocast():
            logits = network(image, item["coordinates"].to(budget.device))
        return {"dice_ce": loss(logits, item["labels"].to(budget.device))}

    return training.run(losses, title="probe and backbone" if finetune else "probe")  # type: ignore[return-value]
