"""What the stages of one-command training share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ...datasets.patch_sampler import TrainingSet
from ...datasets.scans import ScanFiles, Volumes, read_volumes
from ...models.model import load_network
from ...networks.bodypart import BodyPartRegressor
from ...networks.segmenter import Segmenter
from ..loop import Budget
from ..session import store
from .model_folder import ModelFolder
from .networks import NetworkTraining
from .options import ModelTrainingOptions
from .stage_bar import StageBar
from .time_plan import TimePlan


@dataclass
class ModelRun:
    """What the stages share. Scans are read when the first stage needs them."""

    folder: ModelFolder
    options: ModelTrainingOptions
    training: NetworkTraining
    plan: TimePlan
    scans: ScanFiles
    bar: StageBar
    _volumes: Volumes | None = field(default=None, repr=False)

    @property
    def regressor(self) -> BodyPartRegressor:
        """The trained body-part network.

        Raises:
            DiffusionSegmentError: WEIGHTS_MISSING before its stage.
        """
        return cast(BodyPartRegressor, load_network(self.folder.description, "bodypart"))

    @property
    def volumes(self) -> Volumes:
        """All scans on the model's grid."""
        if self._volumes is None:
            self._volumes = read_volumes(self.scans, self.folder.description, self.regressor, self.bar.note)
        return self._volumes

    def checkpoints(self, *parts: str) -> Path:
        """Where a network's checkpoints lie."""
        return self.folder.training.joinpath(*parts)

    def store_segmenter(self, network: Segmenter, budget: Budget, checkpoints: Path, **options: Any) -> None:
        """Write the model's network, and beside it how it came about."""
        store(
            self.folder.path,
            "segmenter",
            network,
            architecture=network.architecture,
            budget=budget,
            cases=self.scans.names,
            options=options,
            checkpoints=checkpoints,
        )

    def sets(self, *, without: tuple[str, ...] = ()) -> list[TrainingSet]:
        """What networks train on."""
        return self.volumes.sets(without=without, denoising=self.options.denoising_share > 0)
