"""Training of the probe on frozen features (Li et al. 2025), or jointly with the backbone.

Fine-tuning follows vox2vec (Goncharov et al. 2023): the backbone is frozen at the start of the run. Several models can
be fine-tuned jointly on a shared backbone, each with its own probe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..datasets.labelled_cases import Case
from ..datasets.patches import patch_batches
from ..networks.backbone import Backbone
from ..networks.probe import Probe
from ..networks.temperature import set_temperature
from .loop import Budget, Training
from .losses import SegmentationLoss

_FROZEN_SHARE = 0.05


@dataclass(frozen=True)
class Task:
    """A model in a joint training: its cases, number of classes, share of the steps, and initial probe."""

    name: str
    cases: Sequence[Case]
    classes: int
    weight: float = 1.0
    probe: Probe | None = None


class ProbedBackbone(nn.Module):
    """A backbone with one probe per task, as one trainable network."""

    def __init__(self, backbone: Backbone, probes: dict[str, Probe]) -> None:
        super().__init__()
        self.backbone = backbone
        self.probes = nn.ModuleDict(probes)

    def forward(self, image: Tensor, coordinates: Tensor, task: str) -> Tensor:
        """Image (B, 1, ...) in -1..1, coordinates (B, 3, ...) normalised -> logits (B, classes, ...) of the task."""
        logits: Tensor = self.probes[task](self.backbone.features(image, coordinates))
        return logits


def train_probe(
    tasks: Sequence[Task],
    *,
    backbone: Backbone,
    budget: Budget,
    folder: Path,
    resume: bool = False,
    patch: int = 64,
    batch: int = 2,
    finetune: bool = False,
) -> ProbedBackbone:
    """Train the probes, and with `finetune` also the backbone.

    Args:
        tasks: Models that are trained jointly. The temperature of an initial probe is reset to 1.
        backbone: The shared backbone.
        budget, folder, resume: Options of the training loop, as in `RunOptions`.
        patch: Side of a patch in voxels.
        batch: Patches per step.
        finetune: Train the backbone as well.

    Returns:
        The moving averages of probes and backbone.
    """
    backbone.requires_grad_(finetune)
    torch.manual_seed(budget.seed)
    network = ProbedBackbone(backbone, _initial_probes(tasks, backbone))
    network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    training = Training(network, budget, folder, resume=resume)
    seed = budget.seed + training.step
    batches = [
        patch_batches(task.cases, classes=task.classes, patch=patch, batch=batch, augment=True, seed=seed + n)
        for n, task in enumerate(tasks)
    ]
    weights = torch.tensor([task.weight for task in tasks])
    generator = torch.Generator().manual_seed(seed)
    loss = SegmentationLoss()
    frozen_share = 0.0 if all(task.probe is not None for task in tasks) else _FROZEN_SHARE

    def losses(progress: float) -> dict[str, Tensor]:
        n = int(torch.multinomial(weights, 1, generator=generator))
        item = next(batches[n])
        backbone.requires_grad_(finetune and progress >= frozen_share)
        image = item["image"].to(budget.device, memory_format=torch.channels_last_3d)
        with budget.autocast():
            logits = network(image, item["coordinates"].to(budget.device), tasks[n].name)
        return {tasks[n].name: loss(logits, item["labels"].to(budget.device), item["drawn"].to(budget.device))}

    trained: ProbedBackbone = training.run(losses, title="probe and backbone" if finetune else "probe")
    return trained


def _initial_probes(tasks: Sequence[Task], backbone: Backbone) -> dict[str, Probe]:
    """The trainable probe of each task, given or new, at temperature 1."""
    probes = {
        task.name: task.probe.requires_grad_(True) if task.probe else Probe(backbone.channels, task.classes)
        for task in tasks
    }
    for probe in probes.values():
        set_temperature(probe, 1.0)
    return probes
