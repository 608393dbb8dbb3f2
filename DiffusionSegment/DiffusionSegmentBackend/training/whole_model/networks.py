"""The networks of one-command training: how each is made, on what, and for how long."""

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
from ..loop import Budget, Report
from ..segmenter import SegmenterRecipe, segmenter_budget, train_segmenter

_TRUNK_RATE, _SEGMENTER_RATE, _STUDENT_RATE, _BODYPART_RATE = 1e-3, 6e-4, 1.2e-4, 2e-3
_TRUNK_EMA, _SEGMENTER_EMA, _BODYPART_EMA = 0.998, 0.995, 0.99
_GPU_BATCH = 8
_MIN_CPU_BATCH, _MAX_CPU_BATCH = 2, 8


@dataclass(frozen=True)
class NetworkTraining:
    """How segmentation networks of one model are trained on one device.

    On a CPU every patch of a batch has a thread of its own; on a GPU batches are of eight patches, and the scans lie in
    its memory. bfloat16 is taken where it is native and its convolutions agree with float32.
    """

    description: ModelDescription
    device: str
    seed: int
    denoising_share: float
    processor_time: bool = False

    @property
    def stride(self) -> Stride:
        """Voxels (z, y, x) of the model's grid that a voxel of the trunk covers."""
        return self.description.tile.stride

    def recipe(self, *, pool: Stride = (1, 1, 1)) -> SegmenterRecipe:
        """Patches of the model's tile."""
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
        """Refuse a manifest whose tile the network cannot halve as often as it has levels.

        Raises:
            DiffusionSegmentError: OPTION.
        """
        self.recipe().shape(self.untrained())

    def trunk(
        self, sets: Sequence[TrainingSet], *, minutes: float, folder: Path, report: Report, seed: int
    ) -> Segmenter:
        """A network at the trunk's spacing, from random weights or from the folder's checkpoint."""
        torch.manual_seed(seed)
        network = Segmenter(self.description.classes, channels=self.description.channels, stride=(1, 1, 1), fine="none")
        budget = self._budget(minutes, learning_rate=_TRUNK_RATE, ema_decay=_TRUNK_EMA, seed=seed)
        return self._train(network, sets, self.trunk_recipe, budget, folder, report)

    def segmenter(
        self, trunk: Segmenter, sets: Sequence[TrainingSet], *, minutes: float, folder: Path, report: Report, seed: int
    ) -> Segmenter:
        """A network on the model's grid that begins where the trunk is."""
        torch.manual_seed(seed)
        network = self.untrained()
        start_from_trunk(network, trunk)
        return self._train(network, sets, self.recipe(), self.segmenter_budget(minutes, seed=seed), folder, report)

    def student(
        self, start: Segmenter, sets: Sequence[TrainingSet], *, minutes: float, folder: Path, report: Report, seed: int
    ) -> Segmenter:
        """A trained network that goes on at a fifth of the learning rate."""
        network = self.untrained()
        network.load_state_dict(start.state_dict())
        return self._train(network, sets, self.recipe(), self.student_budget(minutes, seed=seed), folder, report)

    def untrained(self) -> Segmenter:
        """The network of the model with random weights; with a fine path where its grid is finer than the trunk's."""
        return Segmenter(
            self.description.classes,
            channels=self.description.channels,
            stride=self.stride,
            fine="none" if self.stride == (1, 1, 1) else "path",
        )

    def bodypart_budget(self, minutes: float) -> Budget:
        """Of the body-part network, which PyTorch's own threads compute."""
        budget = self._budget(minutes, learning_rate=_BODYPART_RATE, ema_decay=_BODYPART_EMA, seed=self.seed)
        return replace(budget, cores=torch.get_num_threads())

    def segmenter_budget(self, minutes: float, *, seed: int) -> Budget:
        """Of a network on the model's grid."""
        return self._budget(minutes, learning_rate=_SEGMENTER_RATE, ema_decay=_SEGMENTER_EMA, seed=seed)

    def student_budget(self, minutes: float, *, seed: int) -> Budget:
        """Of a trained network that goes on."""
        return self._budget(minutes, learning_rate=_STUDENT_RATE, ema_decay=_SEGMENTER_EMA, seed=seed)

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
        report: Report,
    ) -> Segmenter:
        return train_segmenter(
            network,
            sets,
            window=self.description.nominal_window,
            recipe=recipe,
            augmentation=augmentation_for(self.description),
            budget=budget,
            folder=folder,
            resume=True,
            report=report,
        )


def cpu_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
