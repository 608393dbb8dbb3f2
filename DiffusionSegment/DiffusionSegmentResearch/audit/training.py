"""Training of the audit network: which voxels of a mask are wrong, for any organ.

A patch is drawn as for a segmenter; one of its organs becomes the audited mask: in half of the patches as a segmenter
found it, where the volume has that (`with_prediction`), else with errors from `mask_errors`. Grey values are remapped
at random, inverted ones included, so that what is learned does not depend on the modality.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from DiffusionSegmentBackend.datasets.patch_geometry import PatchShape
from DiffusionSegmentBackend.datasets.patch_sampler import Augmentation, PatchSampler, TrainingSet
from DiffusionSegmentBackend.datasets.prefetch import prefetched
from DiffusionSegmentBackend.imaging.signed_distance import signed_distance
from DiffusionSegmentBackend.training.loop import RunOptions, Training
from numpy.typing import NDArray
from torch import Tensor

from .mask_errors import ErrorScene, with_errors
from .network import AuditNetwork, audit_input
from .segmenter_errors import separated

AUDIT_PATCH = (48, 48, 48)
# Voxels further than this from the surfaces of mask and truth do not count in the loss.
NEAR_TRAINING_MM = 25.0
_INVERTED_PROBABILITY = 0.25
_SEGMENTER_PROBABILITY = 0.5
_SEED_STRIDE = 1_000_003


@dataclass(frozen=True)
class AuditPatch:
    """Network input (1, 4, z, y, x), whether the mask is wrong (1, 1, z, y, x), and which voxels count."""

    inputs: Tensor
    wrong: Tensor
    counts: Tensor


class AuditPatches:
    """Draws patch `number` of a seed: an organ of a random patch with implanted errors.

    Args:
        sets: labelled volumes, with or without the labels of a segmenter; organs that a set lacks are never audited.
        window: as in `PatchSampler`.
        seed: determines all patches.
        left_out: by set, label values that are never audited, for tests on organs that the network never saw.
    """

    def __init__(
        self,
        sets: Sequence[TrainingSet],
        *,
        window: tuple[float, float],
        seed: int,
        left_out: frozenset[int] = frozenset(),
    ) -> None:
        shape = PatchShape(AUDIT_PATCH, (1, 1, 1))
        self._sampler = PatchSampler(sets, shape=shape, window=window, augmentation=Augmentation(), seed=seed)
        self._seed, self._left_out = seed, left_out
        self._spacing = sets[0].volumes[0].spacing_mm

    def patch(self, number: int) -> AuditPatch:
        """Patch `number`; numbers whose patch shows no organ to audit are replaced by the next that does."""
        while True:
            patch = self._sampler.patch(number)
            random = np.random.default_rng((self._seed, number))
            labels, predicted = separated(patch.labels[0, 0])
            values = [int(v) for v in np.unique(labels) if v and v not in self._left_out]
            if values:
                return self._audited(patch.image[0, 0].numpy(), labels, predicted, values, random)
            number += _SEED_STRIDE

    def _audited(
        self,
        image: NDArray[np.float32],
        labels: NDArray[np.uint8],
        predicted: NDArray[np.uint8],
        values: list[int],
        random: np.random.Generator,
    ) -> AuditPatch:
        value = values[int(random.integers(len(values)))]
        truth, mask = labels == value, predicted == value
        image = remapped(image, random)
        if mask.any() and random.random() < _SEGMENTER_PROBABILITY:
            shown = predicted
        else:
            shown = labels
            mask = with_errors(ErrorScene(mask=truth, image=image, labels=labels, spacing=self._spacing), random)
        distance = signed_distance(mask, self._spacing)
        counts = np.maximum(distance, signed_distance(truth, self._spacing)) > -NEAR_TRAINING_MM
        others = (shown > 0) & (shown != value) & ~mask & (random.random() > 0.3)
        inputs = audit_input(torch.from_numpy(image), torch.from_numpy(distance), torch.from_numpy(others))
        return AuditPatch(
            inputs[None],
            torch.from_numpy(mask != truth)[None, None].float(),
            torch.from_numpy(counts)[None, None].float(),
        )


def remapped(image: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """Grey values in -1..1 through a random curve, one in four times a falling one."""
    knots = np.linspace(-1, 1, 6)
    steps = random.uniform(0.3, 1.7, 5)
    values = -1 + 2 * np.concatenate([[0], np.cumsum(steps)]) / steps.sum()
    if random.random() < _INVERTED_PROBABILITY:
        values = -values
    result: NDArray[np.float32] = np.interp(image, knots, values).astype(np.float32)
    return result


def audit_loss(logits: Tensor, patch: AuditPatch) -> dict[str, Tensor]:
    """Cross-entropy of the voxels that count, and Dice of the wrong ones, of a patch."""
    counts = patch.counts.to(logits.device)
    wrong = patch.wrong.to(logits.device)
    entropy = F.binary_cross_entropy_with_logits(logits, wrong, weight=counts, reduction="sum") / counts.sum().clamp(1)
    probability = logits.sigmoid() * counts
    overlap = (2 * (probability * wrong).sum() + 1) / (probability.sum() + (wrong * counts).sum() + 1)
    return {"entropy": entropy, "dice": 0.5 * (1 - overlap)}


def train_audit(network: AuditNetwork, patches: AuditPatches, *, run: RunOptions, batch: int = 2) -> AuditNetwork:
    """Train `network` from its present weights; returns the moving average in evaluation mode.

    Raises:
        DiffusionSegmentError: CHECKPOINT, DISK_FULL.
    """
    network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    training = Training(network, run.budget, run.folder, resume=run.resume)
    device = run.budget.device

    def drawn(step: int) -> list[AuditPatch]:
        return [patches.patch(step * batch + n) for n in range(batch)]

    with prefetched(drawn, start=training.step) as batches:

        def gradients(_: float) -> dict[str, Tensor]:
            totals: dict[str, Tensor] = {}
            for patch in next(batches):
                with run.budget.autocast():
                    logits = network(patch.inputs.to(device))
                losses = {name: value / batch for name, value in audit_loss(logits, patch).items()}
                torch.autograd.backward(torch.stack(list(losses.values())).sum())
                totals = {name: totals.get(name, 0.0) + value.detach() for name, value in losses.items()}
            return totals

        return training.run_steps(gradients, title=run.title, until=run.until, report=run.report)
