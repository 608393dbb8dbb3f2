"""Pretraining of the backbone without labels: by diffusion, or by one of the objectives that it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..datasets.labelled_cases import TISSUE_THRESHOLD, Case
from ..datasets.patches import patch_batches
from ..errors import DiffusionSegmentError, ErrorCode
from ..networks.backbone import Backbone
from .contrastive import ContrastiveObjective, crop_pairs
from .loop import Budget, Training
from .objectives import DiffusionObjective, RestorativeObjective, StudentObjective

_IMAGE_OBJECTIVES: dict[str, type[DiffusionObjective | RestorativeObjective | StudentObjective]] = {
    "diffusion": DiffusionObjective,
    "restorative": RestorativeObjective,
    "student": StudentObjective,
}
OBJECTIVES = ("diffusion", "restorative", "contrastive", "student")


def train_backbone(
    cases: Sequence[Case],
    *,
    budget: Budget,
    folder: Path,
    resume: bool = False,
    patch: int = 64,
    batch: int = 2,
    objective: str = "diffusion",
    start: Backbone | None = None,
) -> Backbone:
    """Pretrain a backbone; labels are not used.

    Args:
        cases: Scans with body coordinates.
        budget, folder, resume: Options of the training loop, as in `RunOptions`.
        patch: Side of a patch in voxels.
        batch: Patches per step.
        objective: One of `OBJECTIVES`.
        start: Initial weights, random by default; for "student" also the teacher.

    Returns:
        The moving average of the network.

    Raises:
        DiffusionSegmentError: OPTION for an unknown objective or a student without a teacher.
    """
    _check_objective(objective, start)
    torch.manual_seed(budget.seed)
    backbone = start.requires_grad_(True) if start is not None else Backbone()
    if objective == "contrastive":
        return _contrastive(cases, backbone, budget, folder, resume=resume, patch=patch)
    network = _IMAGE_OBJECTIVES[objective](backbone)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    training = Training(network, budget, folder, resume=resume)
    seed = budget.seed + training.step
    batches = patch_batches(
        [body_as_label(case) for case in cases], classes=2, patch=patch, batch=batch, augment=True, seed=seed
    )
    generator = torch.Generator().manual_seed(seed)

    def losses(_: float) -> dict[str, Tensor]:
        item = next(batches)
        image = item["image"].to(budget.device, memory_format=torch.channels_last_3d)
        with budget.autocast():
            values: dict[str, Tensor] = network(image, item["coordinates"].to(budget.device), generator)
        return values

    return training.run(losses, title=f"backbone, {objective}").backbone


def _check_objective(objective: str, start: Backbone | None) -> None:
    if objective not in OBJECTIVES or (objective == "student" and start is None):
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"The backbone cannot be trained for '{objective}' here.",
            hint=f"Choose {', '.join(OBJECTIVES)}; a student needs a trained backbone in the folder.",
        )


def _contrastive(
    cases: Sequence[Case], backbone: Backbone, budget: Budget, folder: Path, *, resume: bool, patch: int
) -> Backbone:
    network = ContrastiveObjective(backbone)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    training = Training(network, budget, folder, resume=resume)
    pairs = crop_pairs(cases, patch=patch, seed=budget.seed + training.step)

    def losses(_: float) -> dict[str, Tensor]:
        crops, voxels = next(pairs)
        with budget.autocast():
            values: dict[str, Tensor] = network(
                crops.to(budget.device, memory_format=torch.channels_last_3d), voxels.to(budget.device)
            )
        return values

    return training.run(losses, title="backbone, contrastive").backbone


def body_as_label(case: Case) -> Case:
    """The case with label 1 in all tissue, so that the positions of patches do not depend on the annotation."""
    return replace(case, labels=(case.image > TISSUE_THRESHOLD).astype(np.uint8))
