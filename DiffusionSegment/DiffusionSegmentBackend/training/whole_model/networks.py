"""The networks of one-command training: construction, training data and budget of each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ...datasets.patch_sampler import TrainingSet, augmentation_for
from ...models.manifest import ModelDescription
from ...networks.segmenter import Segmenter, start_from_trunk
from ...networks.space_to_depth import Stride
from ..loop import Budget, RunOptions, StepCallback
from ..segmenter import SegmenterRecipe, segmenter_budget, train_segmenter

_TRUNK_RATE, _SEGMENTER_RATE, _STUDENT_RATE, _BODYPART_RATE = 1e-3, 6e-4, 1.2e-4, 2e-3
_LONGER_RATE = 4e-4
_TRUNK_EMA, _SEGMENTER_EMA, _BODYPART_EMA = 0.998, 0.995, 0.99
_GPU_BATCH = 8
_MIN_CPU_BATCH, _MAX_CPU_BATCH = 2, 8


@dataclass(frozen=True)
class NetworkTraining:
    """Trains the segmentation networks of one model on one device.

    On a CPU every patch of a batch is computed by its own thread; on a GPU batches have eight patches and the scans are
    kept in its memory. bfloat16 is used where it is native and its convolutions agree with float32.
    """

    description: ModelDescription
    device: str
    seed: int
    denoising_share: float
    processor_time: bool = False

    @property
    def stride(self) -> Stride:
        """Voxels (z, y, x) of the model's grid per voxel of the trunk."""
        return self.description.tile.stride

    def recipe(self, *, pool: Stride = (1, 1, 1)) -> SegmenterRecipe:
        """Patches of the size of the model's tile."""
        on_cpu = self.device == "cpu"
        batch = min(_MAX_CPU_BATCH, max(_MIN_CPU_BATCH, cpu_cores())) if on_cpu else _GPU_BATCH
        return SegmenterRecipe(
            patch=self.description.tile.voxels,
            pool=pool,
            batch=batch,
            denoising_share=self.denoising_share,
            threads=min(batch, cpu_cores()) if on_cpu else 1,
        )

    @property
    def trunk_recipe(self) -> SegmenterRecipe:
        """The same patches at the trunk's spacing."""
        return self.recipe(pool=self.stride)

    def check(self) -> None:
        """Check that the tile is a multiple of the downsampling of the network.

        Raises:
            DiffusionSegmentError: OPTION.
        """
        self.recipe().shape(self.untrained())

    def trunk(
        self, sets: Sequence[TrainingSet], *, minutes: float, folder: Path, report: StepCallback, seed: int
    ) -> Segmenter:
        """A network at the trunk's spacing, from random weights or from the folder's checkpoint."""
        torch.manual_seed(seed)
        network = Segmenter(self.description.classes, channels=self.description.channels, stride=(1, 1, 1), fine="none")
        budget = self._budget(minutes, learning_rate=_TRUNK_RATE, ema_decay=_TRUNK_EMA, seed=seed)
        return self._train(network, sets, self.trunk_recipe, budget, folder, report)

    def segmenter(
        self,
        trunk: Segmenter,
        sets: Sequence[TrainingSet],
        *,
        minutes: float,
        folder: Path,
        report: StepCallback,
        seed: int,
    ) -> Segmenter:
        """A network on the model's grid, initialised from the trunk."""
        torch.manual_seed(seed)
        network = self.untrained()
        start_from_trunk(network, trunk)
        return self._train(network, sets, self.recipe(), self.segmenter_budget(minutes, seed=seed), folder, report)

    def continued(
        self,
        start: Segmenter,
        sets: Sequence[TrainingSet],
        *,
        budget: Budget,
        folder: Path,
        report: StepCallback,
    ) -> Segmenter:
        """Continue the training of a network, with the budget of a student or of more minutes."""
        network = self.untrained()
        network.load_state_dict(start.state_dict())
        return self._train(network, sets, self.recipe(), budget, folder, report)

    def untrained(self) -> Segmenter:
        """The network of the model with random weights; with a fine path if its grid is finer than the trunk's."""
        return Segmenter(
            self.description.classes,
            channels=self.description.channels,
            stride=self.stride,
            fine="none" if self.stride == (1, 1, 1) else "path",
        )

    def bodypart_budget(self, minutes: float) -> Budget:
        """Budget of the body-part network, which uses PyTorch's intra-op threads."""
        budget = self._budget(minutes, learning_rate=_BODYPART_RATE, ema_decay=_BODYPART_EMA, seed=self.seed)
        return replace(budget, cores=torch.get_num_threads())

    def segmenter_budget(self, minutes: float, *, seed: int) -> Budget:
        """Budget of a network on the model's grid."""
        return self._budget(minutes, learning_rate=_SEGMENTER_RATE, ema_decay=_SEGMENTER_EMA, seed=seed)

    def student_budget(self, minutes: float, *, seed: int) -> Budget:
        """Budget of a network that is continued with pseudo-labels, at a fifth of the learning rate."""
        return self._budget(minutes, learning_rate=_STUDENT_RATE, ema_decay=_SEGMENTER_EMA, seed=seed)

    def longer_budget(self, minutes: float, *, seed: int) -> Budget:
        """Budget of a trained network that gets more minutes, at two thirds of the learning rate."""
        return self._budget(minutes, learning_rate=_LONGER_RATE, ema_decay=_SEGMENTER_EMA, seed=seed)

    def _budget(self, minutes: float, *, learning_rate: float, ema_decay: float, seed: int) -> Budget:
        return segmenter_budget(
            minutes,
            learning_rate=learning_rate,
            ema_decay=ema_decay,
            seed=seed,
            device=self.device,
            cores=self.recipe().threads,
            processor_time=self.processor_time,
        )

    def _train(
        self,
        network: Segmenter,
        sets: Sequence[TrainingSet],
        recipe: SegmenterRecipe,
        budget: Budget,
        folder: Path,
        report: StepCallback,
    ) -> Segmenter:
        return train_segmenter(
            network,
            sets,
            window=self.description.nominal_window,
            recipe=recipe,
            augmentation=augmentation_for(self.description),
            run=RunOptions(budget=budget, folder=folder, resume=True, report=report),
        )


def cpu_cores() -> int:
    """CPU cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
